package keeper

import (
	"context"
	"errors"
	"time"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// start starts a process on the present store.
func (m *model) start() {
	m.process = &process{}
	var ctx context.Context
	ctx, m.kill = context.WithCancel(context.Background())
	m.vault = NewVault(mortalStore{m.store, ctx})
	m.config = m.configOf(m.vault, m.process)
	m.keepers = []*Keeper{mustKeeper(m.config)}
}

// mortalStore is the store of a process that can be killed: its operations end then.
type mortalStore struct {
	session.Store
	life context.Context
}

func (s mortalStore) bound(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	if s.life.Err() != nil {
		cancel()
	}
	return ctx, func() { stop(); cancel() }
}

func (s mortalStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.View(ctx, id, f)
}

func (s mortalStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.Create(ctx, id, item)
}

func (s mortalStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.Replace(ctx, id, item)
}

func (s mortalStore) Delete(ctx context.Context, id session.ID) error {
	ctx, done := s.bound(ctx)
	defer done()
	return s.Store.Delete(ctx, id)
}

func (m *model) reload(*rapid.T) {
	m.keepers = append(m.keepers[max(0, len(m.keepers)-1):], mustKeeper(m.config))
}

// crash kills the process. Its unwritten records are lost, and sessions that it could not
// delete may be served again.
func (m *model) crash() {
	m.process.dead.Store(true)
	m.kill()
	if err := m.vault.Close(context.Background()); err != nil {
		m.violate("Close: %v", err)
	}
	m.requests.Wait()
	for _, s := range m.sessions {
		s.token = ""
		item, there := m.store.item(m.site.Ref(s.secret).ID)
		if !there {
			// The item was deleted, or it has expired in the store.
			s.over = s.over || item.Version > 0
			continue
		}
		s.loggingOut, s.loggedOut, s.over = false, false, false
		rec, err := openRecord(m.site, seal.Ref{ID: m.site.Ref(s.secret).ID, Secret: s.secret}, item)
		if err != nil {
			m.violate("%s: reading after a crash: %v", s.family.name, err)
			continue
		}
		m.server.mu.Lock()
		s.lost = s.lost || rec.refreshToken != s.family.current
		m.server.mu.Unlock()
		// Unwritten uses are lost with the process.
		s.lastUse = rec.lastUsed
	}
}

// restart closes the process while the store works, and starts another. No token, use or end
// is lost.
func (m *model) restart() {
	m.store.clearFaults()
	m.mu.Lock()
	m.readable = laterOf(m.readable, time.Now())
	m.mu.Unlock()
	time.Sleep(2 * writeRetryMax)
	if err := m.vault.Close(context.Background()); err != nil {
		m.violate("Close: %v", err)
	}
	m.requests.Wait()
	m.process.dead.Store(true)
	m.kill()
	for _, s := range m.sessions {
		s.token = ""
		if _, there := m.store.item(m.site.Ref(s.secret).ID); there && s.loggedOut {
			m.violate("%s: in the store after its logout", s.family.name)
		}
	}
	m.start()
}

func (m *model) changeStore(t *rapid.T) {
	fail := storeFault{err: errStoreDown}
	unacknowledged := storeFault{err: errStoreDown, done: true}
	slow := storeFault{before: 700 * time.Millisecond, after: 700 * time.Millisecond}
	n := 0
	ways := map[string]func(op storeOp) storeFault{
		"working":              nil,
		"down":                 func(storeOp) storeFault { return fail },
		"read only":            func(op storeOp) storeFault { return when(op.writes(), fail) },
		"unacknowledged":       func(op storeOp) storeFault { return when(op.writes(), unacknowledged) },
		"slow":                 func(op storeOp) storeFault { return when(op.writes(), slow) },
		"cannot end":           func(op storeOp) storeFault { return when(op == opDelete, fail) },
		"third fails":          func(op storeOp) storeFault { n++; return when(op.writes() && n%3 == 0, fail) },
		"second slow":          func(op storeOp) storeFault { n++; return when(op.writes() && n%2 == 0, slow) },
		"third unacknowledged": func(op storeOp) storeFault { n++; return when(op.writes() && n%3 == 0, unacknowledged) },
	}
	// The store works most of the time, because the recovery matters as much as the fault.
	way := rapid.SampledFrom([]string{
		"working", "working", "working", "working", "down", "read only", "unacknowledged", "slow", "cannot end", "third fails", "second slow", "third unacknowledged",
	}).Draw(t, "store is")
	m.store.setFault(ways[way])
	m.mu.Lock()
	defer m.mu.Unlock()
	if way == "down" {
		m.readable = time.Time{}
	} else if m.readable.IsZero() {
		m.readable = time.Now()
	}
}

func when(yes bool, f storeFault) storeFault {
	if yes {
		return f
	}
	return storeFault{}
}

func (m *model) changeServer(t *rapid.T) {
	ways := map[string]behaviour{
		"working": {}, "slow": {before: 15 * time.Second}, "slow to answer": {after: 6 * time.Second},
		"unavailable": {outcome: Unavailable}, "demanding a pause": {outcome: Unavailable, retryAfter: 90 * time.Second},
		"misconfigured": {outcome: Misconfigured}, "unclear": {outcome: Unclear},
		"malformed": {outcome: Malformed}, "malformed but rotating": {outcome: Malformed, processed: true, withRefreshToken: true},
		"malformed and lost": {outcome: Malformed, processed: true}, "request lost": {outcome: Unanswered}, "answer lost": {outcome: Unanswered, processed: true},
	}
	way := rapid.SampledFrom([]string{
		"working", "working", "working", "working", "working", "slow", "slow to answer", "unavailable", "demanding a pause", "misconfigured",
		"unclear", "malformed", "malformed but rotating", "malformed and lost", "request lost", "answer lost",
	}).Draw(t, "server is")
	m.server.always(ways[way])
}

func (m *model) changeIdentity(t *rapid.T) {
	way := rapid.SampledFrom([]string{"valid", "valid", "valid", "unverifiable", "foreign"}).Draw(t, "ID tokens are")
	m.server.set(func() {
		m.server.identify = func(current Identity, _ Tokens) (Identity, error) {
			switch way {
			case "unverifiable":
				return Identity{}, errors.New("fetching keys: timed out")
			case "foreign":
				m.mu.Lock()
				defer m.mu.Unlock()
				for _, s := range m.sessions {
					if "subject-of-"+s.family.name == current.Subject {
						s.foreign = true
					}
				}
				return Identity{}, ErrIdentityChanged
			}
			return current, nil
		}
	})
}

func (m *model) revoke(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "revoke") == 0 {
		s := m.pick(t)
		m.server.set(func() { s.family.dead = true })
	}
}
