package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestInstancesKeepThePromises drives three processes on one store through drawn sequences
// of requests, pauses, outages, failed and late writes, logouts and crashes. None of them
// may cost a session or a token. The limits that docs/protocol names for any design are not
// drawn: a holder that is stopped, or alone cut off from the store, for longer than
// leaseTimeout.
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
	actions := m.actions()
	maps.Copy(actions, map[string]func(*rapid.T){
		"request":      m.request,
		"request more": m.request,
		"burst":        m.burstAll,
		"outage":       m.outage,
		"blip":         m.blip,
		"writes":       m.writes,
		"missed push":  m.missedPush,
		"logout":       m.logoutAnywhere,
		"crash":        m.crashOne,
		"restart":      m.restartOne,
	})
	t.Repeat(actions)
	m.recoverAll(t)
}

// instancesModel is a model with several processes on one shared store.
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
	m.drawServer(t)
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
	m.each[i] = mustKeeper(m.configOf(NewVault(user), p))
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

// freshAt sends one request to an instance and checks its result. It checks only ends and
// served tokens: an instance may be unavailable although another one has a usable token.
func (m *instancesModel) freshAt(k *Keeper, p *process, s *modelSession) {
	start := time.Now()
	m.mu.Lock()
	before := *s
	s.lastRequest = start
	m.mu.Unlock()
	got, err := k.Fresh(context.Background(), s.secret)
	if p.dead.Load() {
		return
	}
	switch {
	case err == nil:
		if wrong := m.mayServe(before, start, got); wrong != "" {
			m.violate("%s: served %s", s.family.name, wrong)
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
			m.violate("%s: ended without a reason: %v", s.family.name, err)
		}
		m.mu.Lock()
		s.loggingOut = true // further requests may find the end, too
		m.mu.Unlock()
	case !errors.As(err, new(*UnavailableError)):
		m.violate("Fresh: %v", err)
	}
}

// outage makes the store unreachable, or read-only, for all instances for a while.
func (m *instancesModel) outage(t *rapid.T) {
	readOnly := rapid.Bool().Draw(t, "read-only")
	for _, u := range m.users {
		if !readOnly {
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
		u.clearFaults()
	}
}

// blip makes the store unreachable for one instance, for less than leaseTimeout.
func (m *instancesModel) blip(t *rapid.T) {
	u := m.users[m.instance(t)]
	u.disconnect()
	time.Sleep(leaseTimeout / 4)
	u.clearFaults()
	time.Sleep(leaseTimeout / 2) // so that several do not add up to leaseTimeout
}

// during sends requests during a fault.
func (m *instancesModel) during(t *rapid.T, most time.Duration) {
	for range rapid.IntRange(0, 3).Draw(t, "requests during the fault") {
		m.request(t)
		time.Sleep(time.Duration(rapid.Int64Range(0, int64(most)/3).Draw(t, "pause")))
	}
}

// writes makes writes of items fail, or late, at one instance for a while.
func (m *instancesModel) writes(t *rapid.T) {
	u := m.users[m.instance(t)]
	fault := rapid.SampledFrom([]storeFault{
		{err: errStoreDown},
		{err: errStoreDown, done: true},
		{before: 700 * time.Millisecond},
		{before: storeTimeout + time.Second}, // succeeds after the keeper has given up
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

// missedPush makes one instance miss the pushes of some changes and then lose its
// connection, as happens with a real store.
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
	s.loggingOut = true
	m.mu.Unlock()
	_, err := m.each[m.instance(t)].End(context.Background(), s.secret, EndLogout)
	synctest.Wait() // for the push
	if errors.Is(err, ErrNoSession) && !m.mayEnd(before, time.Now()) {
		m.violate("%s: ended before its logout: %v", s.family.name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.loggedOut = true
}

// kill ends one process. Its unwritten tokens are lost.
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
		// The newest token may be unwritten at this process, or at another one.
		s.lost = s.lost || rec.refreshToken != s.family.current
		s.lastUse = rec.lastUsed // later uses may be lost
	}
}

func (m *instancesModel) crashOne(t *rapid.T) {
	i := m.instance(t)
	m.kill(i)
	m.startOne(i)
}

// restartOne closes one process and starts another.
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

// recoverAll ends all faults. Every session that has no reason to end goes on at every
// instance, with its newest tokens in the store, and every lease is free.
func (m *instancesModel) recoverAll(t *rapid.T) {
	m.server.normal()
	m.server.set(func() { m.server.identify = nil })
	for _, u := range m.users {
		u.clearFaults()
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
			s.lastRequest = start
			m.mu.Unlock()
			got, err := k.Fresh(context.Background(), s.secret)
			switch {
			case err == nil:
				if wrong := m.mayServe(known, start, got); wrong != "" {
					t.Errorf("%s: served %s at instance %d", s.family.name, wrong, i)
				}
			case sound && !over:
				t.Errorf("%s: lost at instance %d: %v", s.family.name, i, err)
			case !errors.Is(err, ErrNoSession):
				t.Errorf("%s: at instance %d after all faults: %v", s.family.name, i, err)
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
			t.Errorf("instance %d holds %d leases, want none", i, n)
		}
		k.Vault.mu.Unlock()
	}
}
