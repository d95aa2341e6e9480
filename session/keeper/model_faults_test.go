package keeper

import (
	"context"
	"errors"
	"time"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// start begins a process on the store as it is.
func (m *model) start() {
	m.process = &process{}
	var ctx context.Context
	ctx, m.kill = context.WithCancel(context.Background())
	m.vault = NewVault(mortalStore{m.store, ctx})
	m.config = Config{
		Vault: m.vault, Site: m.site, Refresher: m.server.client(m.process),
		IdleTimeout: modelIdle, MaxLifetime: modelMax, RefreshTimeout: modelTimeout, DefaultTokenLifetime: modelLifetime,
		Observe: func(e Event) {
			if e.Kind == EventEnded && e.Reason == "" {
				m.violate("an end without reason")
			}
		},
	}
	m.keepers = []*Keeper{mustKeeper(m.config)}
}

// mortalStore is the store as a process sees it that can be killed.
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

// crash kills the process. What only it knew is lost, and what it could not
// delete may come back.
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
			// Either it was deleted, or the store has dropped it by now.
			s.over = s.over || item.Version > 0
			continue
		}
		s.leaving, s.left, s.over = false, false, false
		rec, err := openRecord(m.site, seal.Ref{ID: m.site.Ref(s.secret).ID, Secret: s.secret}, item)
		if err != nil {
			m.violate("%s cannot be read after a crash: %v", s.family.name, err)
			continue
		}
		m.server.mu.Lock()
		s.lost = s.lost || rec.refreshToken != s.family.current
		m.server.mu.Unlock()
		// A use that only the process knew died with it.
		s.lastUse = rec.lastUsed
	}
}

// restart ends the process in good order: with a store that is well nothing is
// lost, neither tokens nor uses nor ends.
func (m *model) restart() {
	m.store.healthy()
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
		if _, there := m.store.item(m.site.Ref(s.secret).ID); there && s.left {
			m.violate("%s is in the store after its logout", s.family.name)
		}
	}
	m.start()
}

func (m *model) changeStore(t *rapid.T) {
	fail := storeFault{err: errStoreDown}
	denied := storeFault{err: errStoreDown, landed: true}
	slow := storeFault{before: 700 * time.Millisecond, after: 700 * time.Millisecond}
	n := 0
	ways := map[string]func(op storeOp) storeFault{
		"well":         nil,
		"down":         func(storeOp) storeFault { return fail },
		"read only":    func(op storeOp) storeFault { return when(op.writes(), fail) },
		"denies":       func(op storeOp) storeFault { return when(op.writes(), denied) },
		"slow":         func(op storeOp) storeFault { return when(op.writes(), slow) },
		"cannot end":   func(op storeOp) storeFault { return when(op == opDelete, fail) },
		"third fails":  func(op storeOp) storeFault { n++; return when(op.writes() && n%3 == 0, fail) },
		"second slow":  func(op storeOp) storeFault { n++; return when(op.writes() && n%2 == 0, slow) },
		"third denies": func(op storeOp) storeFault { n++; return when(op.writes() && n%3 == 0, denied) },
	}
	// Mostly well: what follows a fault is as telling as the fault.
	way := rapid.SampledFrom([]string{
		"well", "well", "well", "well", "down", "read only", "denies", "slow", "cannot end", "third fails", "second slow", "third denies",
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
		"well": {}, "slow": {before: 15 * time.Second}, "slow to answer": {after: 6 * time.Second},
		"unavailable": {outcome: Unavailable}, "asking for time": {outcome: Unavailable, retryAfter: 90 * time.Second},
		"misconfigured": {outcome: Misconfigured}, "unclear": {outcome: Unclear},
		"malformed": {outcome: Malformed}, "malformed but rotating": {outcome: Malformed, processed: true, withRefreshToken: true},
		"malformed and lost": {outcome: Malformed, processed: true}, "deaf": {outcome: Unanswered}, "mute": {outcome: Unanswered, processed: true},
	}
	way := rapid.SampledFrom([]string{
		"well", "well", "well", "well", "well", "slow", "slow to answer", "unavailable", "asking for time", "misconfigured",
		"unclear", "malformed", "malformed but rotating", "malformed and lost", "deaf", "mute",
	}).Draw(t, "server is")
	m.server.always(ways[way])
}

func (m *model) changeIdentity(t *rapid.T) {
	way := rapid.SampledFrom([]string{"judged", "judged", "judged", "not judged", "foreign"}).Draw(t, "ID tokens are")
	m.server.set(func() {
		m.server.identify = func(current Identity, _ Tokens) (Identity, error) {
			switch way {
			case "not judged":
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
