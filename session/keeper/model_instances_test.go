package keeper

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestInstancesKeepThePromises drives three processes on one store through drawn
// interleavings of requests, time, outages, writes that fail or come late,
// logouts and crashes. What docs/protocol names as limits of any design (a
// holder that stands still, or is cut off alone, for longer than a lease's
// silence) is not drawn; all else must cost nothing.
func TestInstancesKeepThePromises(t *testing.T) {
	for part := range 4 {
		t.Run(fmt.Sprint(part), rapid.MakeCheck(func(t *rapid.T) { rapid.SyncTest(t, instancesExample) }))
	}
}

func instancesExample(t *rapid.T) {
	m := newInstancesModel(t)
	t.Cleanup(func() {
		for i := range m.processes {
			m.kill(i)
			_ = m.each[i].Vault.Close(context.Background())
		}
		m.requests.Wait()
	})
	t.Repeat(map[string]func(*rapid.T){
		"":             m.check,
		"login":        m.login,
		"request":      m.request,
		"request more": m.request,
		"burst":        m.burstAll,
		"time":         m.time,
		"time to due":  func(*rapid.T) { time.Sleep(modelLifetime * 9 / 10) },
		"time to end":  func(*rapid.T) { time.Sleep(modelLifetime) },
		"outage":       m.outage,
		"blip":         m.blip,
		"writes":       m.writes,
		"missed push":  m.missedPush,
		"server":       m.changeServer,
		"identity":     m.changeIdentity,
		"logout":       m.logoutAnywhere,
		"crash":        m.crashOne,
		"restart":      m.restartOne,
	})
	m.recoverAll(t)
}

// instancesModel is the model of one process with several of them.
type instancesModel struct {
	*model
	state     *sharedState
	users     []*sharedUser
	processes []*process
	each      []*Keeper
}

const modelInstances = 3

func newInstancesModel(t *rapid.T) *instancesModel {
	m := &instancesModel{state: newSharedState(), model: &model{}}
	m.store = &m.state.fakeStore
	m.server = newAuthServer(m.violate)
	m.server.lifetime = modelLifetime
	m.server.latency = rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 4 * time.Second}).Draw(t, "latency")
	m.server.idTokens = rapid.Bool().Draw(t, "ID tokens")
	m.server.identifyDelay = rapid.SampledFrom([]time.Duration{0, 150 * time.Millisecond, 2 * time.Second}).Draw(t, "judging")
	m.server.doesNotRotate = rapid.IntRange(0, 4).Draw(t, "keeps refresh tokens") == 0
	ring, err := seal.NewKeyRing(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	m.site = seal.NewSite(ring, "issuer", "client", "cookie")
	// Requests in flight are judged by the life of their own process, not by
	// this one.
	m.model.process = &process{}
	for range modelInstances {
		m.users, m.processes, m.each = append(m.users, nil), append(m.processes, nil), append(m.each, nil)
	}
	for i := range modelInstances {
		m.startOne(i)
	}
	m.login(t)
	return m
}

func (m *instancesModel) startOne(i int) {
	user, p := m.state.user(), &process{}
	m.users[i], m.processes[i] = user, p
	m.each[i] = mustKeeper(Config{
		Vault: NewVault(user), Site: m.site, Refresher: m.server.client(p),
		IdleTimeout: modelIdle, MaxLifetime: modelMax, RefreshTimeout: modelTimeout,
		DefaultTokenLifetime: 5 * time.Minute,
	})
	m.keepers = m.each
}

func (m *instancesModel) instance(t *rapid.T) int {
	return rapid.IntRange(0, modelInstances-1).Draw(t, "instance")
}

func (m *instancesModel) request(t *rapid.T) {
	s, i := m.pick(t), m.instance(t)
	m.ask(i, s)
}

func (m *instancesModel) burstAll(t *rapid.T) {
	s := m.pick(t)
	for n := range 6 {
		m.ask(n%modelInstances, s)
	}
}

func (m *instancesModel) ask(i int, s *modelSession) {
	k, p := m.each[i], m.processes[i]
	m.requests.Go(func() { m.freshAt(k, p, s) })
}

// freshAt is one request, and judges its result. That a good token is known to
// one instance does not mean that another has it, so only endings and what is
// served are judged.
func (m *instancesModel) freshAt(k *Keeper, p *process, s *modelSession) {
	start := time.Now()
	m.mu.Lock()
	before := *s
	s.asked = start
	m.mu.Unlock()
	got, err := k.Fresh(context.Background(), s.secret)
	if p.dead.Load() {
		return
	}
	switch {
	case err == nil:
		if wrong := m.mayServe(before, start, got); wrong != "" {
			m.violate("%s is served %s", s.family.name, wrong)
		}
		m.mu.Lock()
		s.lastUse, s.token = laterOf(s.lastUse, start), got.AccessToken
		m.mu.Unlock()
	case errors.Is(err, ErrNoSession):
		m.mu.Lock()
		after := *s
		m.mu.Unlock()
		after.lastUse = before.lastUse
		if !m.mayEnd(after, time.Now()) {
			m.violate("%s is over without reason: %v", s.family.name, err)
		}
		m.mu.Lock()
		s.leaving = true // from now on nobody is surprised
		m.mu.Unlock()
	case !errors.As(err, new(*UnavailableError)):
		m.violate("Fresh: %v", err)
	}
}

// outage takes the store away from all, or lets it take no writes, and brings
// it back to all.
func (m *instancesModel) outage(t *rapid.T) {
	full := rapid.Bool().Draw(t, "takes no writes")
	for _, u := range m.users {
		if !full {
			u.disconnect()
			continue
		}
		u.setFault(func(op sharedOp) (f storeFault) {
			if op != sharedView && op != sharedCurrent {
				f.err = errStoreDown
			}
			return f
		})
	}
	m.during(t, 40*time.Second)
	for _, u := range m.users {
		u.healthy()
	}
}

// blip takes it away from one, for less time than makes a holder look dead.
func (m *instancesModel) blip(t *rapid.T) {
	u := m.users[m.instance(t)]
	u.disconnect()
	time.Sleep(leaseTimeout / 4)
	u.healthy()
	time.Sleep(leaseTimeout / 2) // or several would make one that is too long
}

// during lets requests come while something is wrong.
func (m *instancesModel) during(t *rapid.T, most time.Duration) {
	for range rapid.IntRange(0, 3).Draw(t, "requests meanwhile") {
		m.request(t)
		time.Sleep(time.Duration(rapid.Int64Range(0, int64(most)/3).Draw(t, "pause")))
	}
}

// writes of items go wrong at one instance for a while; all else works.
func (m *instancesModel) writes(t *rapid.T) {
	u := m.users[m.instance(t)]
	fault := rapid.SampledFrom([]storeFault{
		{err: errStoreDown},
		{err: errStoreDown, landed: true},
		{before: 700 * time.Millisecond},
		{before: storeTimeout + time.Second}, // lands when nobody waits any more
		{after: storeTimeout},
	}).Draw(t, "fault")
	u.setFault(func(op sharedOp) storeFault {
		if op.writesItem() {
			return fault
		}
		return storeFault{}
	})
	m.during(t, 6*time.Minute)
	u.setFault(nil)
}

// missedPush: one instance is not told of some changes, and then loses its
// connection, as a real one does that misses something.
func (m *instancesModel) missedPush(t *rapid.T) {
	s, i := m.pick(t), m.instance(t)
	u := m.users[i]
	u.mu.Lock()
	u.missesPushes = true
	u.mu.Unlock()
	m.ask((i+1)%modelInstances, s)
	time.Sleep(time.Second)
	u.mu.Lock()
	u.missesPushes = false
	u.mu.Unlock()
	u.dropCopies()
}

func (m *instancesModel) logoutAnywhere(t *rapid.T) {
	if rapid.Bool().Draw(t, "stay") {
		return
	}
	s := m.pick(t)
	m.mu.Lock()
	before := *s
	s.leaving = true
	m.mu.Unlock()
	_, err := m.each[m.instance(t)].End(context.Background(), s.secret, EndLogout)
	synctest.Wait() // the push
	if errors.Is(err, ErrNoSession) && !m.mayEnd(before, time.Now()) {
		m.violate("%s was over before its logout: %v", s.family.name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.left = true
}

// kill ends one process. Tokens that it alone had are lost.
func (m *instancesModel) kill(i int) {
	m.processes[i].dead.Store(true)
	m.users[i].Watch(nil)
	m.users[i].disconnect()
	m.users[i].mu.Lock()
	m.users[i].missesPushes = true
	m.users[i].mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.each[i].Vault.Close(ctx)
	synctest.Wait()
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		item, ok := m.store.item(m.site.Ref(s.secret).ID)
		if !ok {
			continue
		}
		rec, err := openRecord(m.site, seal.Ref{ID: m.site.Ref(s.secret).ID, Secret: s.secret}, item)
		if err != nil {
			continue
		}
		// Perhaps it was another one's, who will land it; it may be this one's.
		s.lost = s.lost || rec.refreshToken != s.family.current
		s.lastUse = rec.lastUsed // nor does anybody else know of a later use
	}
}

func (m *instancesModel) crashOne(t *rapid.T) {
	i := m.instance(t)
	m.kill(i)
	m.startOne(i)
}

// restartOne ends a process in order and starts another.
func (m *instancesModel) restartOne(t *rapid.T) {
	i := m.instance(t)
	if err := m.each[i].Vault.Close(context.Background()); err != nil {
		t.Fatalf("closing: %v", err)
	}
	m.kill(i)
	m.startOne(i)
}

func (m *instancesModel) known(s *modelSession) modelSession {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *s
}

// recoverAll makes all well: every session that has not ended for a reason goes
// on, at every instance, with the newest tokens in the store, and nobody holds a
// lease.
func (m *instancesModel) recoverAll(t *rapid.T) {
	m.server.normal()
	m.server.set(func() { m.server.identify = nil })
	for _, u := range m.users {
		u.healthy()
	}
	time.Sleep(2 * time.Minute)
	m.requests.Wait()
	for _, s := range m.sessions {
		m.server.mu.Lock()
		sound := !s.family.dead && !s.family.unclearSeen && !s.family.lost && !s.lost
		m.server.mu.Unlock()
		for i, k := range m.each {
			known, start := m.known(s), time.Now()
			over := m.mayEnd(known, start)
			m.mu.Lock()
			s.asked = start
			m.mu.Unlock()
			got, err := k.Fresh(context.Background(), s.secret)
			switch {
			case err == nil:
				if wrong := m.mayServe(known, start, got); wrong != "" {
					t.Errorf("%s is served %s at %d", s.family.name, wrong, i)
				}
			case sound && !over:
				t.Errorf("%s is lost at %d: %v", s.family.name, i, err)
			case !errors.Is(err, ErrNoSession):
				t.Errorf("%s at %d, when all is well: %v", s.family.name, i, err)
			}
		}
		if sound && !m.mayEnd(m.known(s), time.Now()) {
			m.newestIsStored(t, s)
		}
	}
	time.Sleep(time.Minute)
	m.check(t)
	for i, k := range m.each {
		k.Vault.mu.Lock()
		if n := len(k.Vault.heldLeases); n > 0 {
			t.Errorf("instance %d still holds %d leases", i, n)
		}
		k.Vault.mu.Unlock()
	}
}
