package keeper

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// sharedState is a store in memory for several processes.
type sharedState struct {
	fakeStore // the items
	leases    map[session.ID]session.Lease
	notes     map[session.Topic]map[session.Holder]announced
	users     []*sharedUser
}

type announced struct {
	note []byte
	at   time.Time
}

func newSharedState() *sharedState {
	return &sharedState{
		fakeStore: fakeStore{items: map[session.ID]session.Item{}}, leases: map[session.ID]session.Lease{}, notes: map[session.Topic]map[session.Holder]announced{},
	}
}

// sharedUser is the store of one process, with its own copies, pushes and faults.
type sharedUser struct {
	state *sharedState

	mu           sync.Mutex
	fault        func(op sharedOp) storeFault
	copies       map[session.ID]session.Item
	changed      func([]session.ID)
	missesPushes bool // pushes do not arrive
}

type sharedOp int

const (
	sharedView sharedOp = iota
	sharedCurrent
	sharedCreate
	sharedReplace
	sharedDelete
	sharedDeleteAt
	sharedAcquire
	sharedBeat
	sharedRelease
	sharedAnnounce
	sharedTagged
	sharedList // also Labels
)

func (op sharedOp) writesItem() bool { return op >= sharedCreate && op <= sharedDeleteAt }

func (s *sharedState) user() *sharedUser {
	u := &sharedUser{state: s, copies: map[session.ID]session.Item{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users = append(s.users, u)
	return u
}

func (u *sharedUser) setFault(f func(sharedOp) storeFault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fault = f
}

// disconnect cuts the process off from the store. Its copies are lost with the connection.
func (u *sharedUser) disconnect() {
	u.setFault(func(sharedOp) storeFault { return storeFault{err: errStoreDown} })
	u.dropCopies()
}

// clearFaults ends all faults and drops the copies.
func (u *sharedUser) clearFaults() { u.setFault(nil); u.dropCopies() }

// dropCopies removes all copies, as the loss of a connection does.
func (u *sharedUser) dropCopies() {
	u.mu.Lock()
	clear(u.copies)
	changed := u.changed
	u.mu.Unlock()
	if changed != nil {
		changed(nil)
	}
}

// do runs one operation under the fault that is set for this process.
func (u *sharedUser) do(ctx context.Context, op sharedOp, f func() error) error {
	u.mu.Lock()
	var fault storeFault
	if u.fault != nil {
		fault = u.fault(op)
	}
	u.mu.Unlock()
	if fault.freeze {
		<-ctx.Done()
		return ctx.Err()
	}
	if fault.err != nil && !fault.done {
		if err := waitFor(ctx, fault.before); err != nil {
			return err
		}
		return fault.err
	}
	if fault.before > 0 && ctx.Err() == nil {
		// A write that was sent succeeds even if the caller no longer waits for it.
		done := make(chan error, 1)
		go func() {
			time.Sleep(fault.before)
			done <- u.step(f)
		}()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := u.step(f)
	if lost := waitFor(ctx, fault.after); lost != nil {
		return lost
	}
	if err != nil {
		return err
	}
	return fault.err
}

func (u *sharedUser) step(f func() error) error {
	u.state.mu.Lock()
	defer u.state.mu.Unlock()
	return f()
}

// push notifies all processes of a change. The state is locked.
func (s *sharedState) push(id session.ID) {
	for _, u := range s.users {
		u.mu.Lock()
		missed, changed := u.missesPushes, u.changed
		if _, tracked := u.copies[id]; !tracked {
			changed = nil // one push for each View, as from Redis
		}
		if !missed {
			delete(u.copies, id)
		}
		u.mu.Unlock()
		if !missed && changed != nil {
			go changed([]session.ID{id})
		}
	}
}

// unexpired returns an item unless it has expired. The state is locked.
func (s *sharedState) unexpired(id session.ID) (session.Item, bool) {
	item, ok := s.items[id]
	if ok && !time.Now().Before(item.Expires) {
		delete(s.items, id)
		delete(s.leases, id)
		return session.Item{}, false
	}
	return item, ok
}

func (u *sharedUser) Watch(changed func([]session.ID)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changed = changed
}

func (u *sharedUser) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	u.mu.Lock()
	kept, ok := u.copies[id]
	u.mu.Unlock()
	if ok && time.Now().Before(kept.Expires) {
		return f(cloneItem(kept))
	}
	return u.view(ctx, sharedView, id, f)
}

func (u *sharedUser) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return u.view(ctx, sharedCurrent, id, f)
}

func (u *sharedUser) view(ctx context.Context, op sharedOp, id session.ID, f func(session.Item) error) error {
	var item session.Item
	err := u.do(ctx, op, func() error {
		kept, ok := u.state.unexpired(id)
		if !ok {
			return session.ErrNotFound
		}
		item = cloneItem(kept)
		if op == sharedView {
			u.mu.Lock()
			u.copies[id] = cloneItem(kept)
			u.mu.Unlock()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f(item)
}

func (u *sharedUser) Create(ctx context.Context, id session.ID, item session.Item) error {
	item = cloneItem(item)
	return u.do(ctx, sharedCreate, func() error {
		if _, ok := u.state.unexpired(id); ok || item.Version != 1 {
			return session.ErrConflict
		}
		u.state.items[id] = item
		u.state.push(id)
		return nil
	})
}

func (u *sharedUser) Replace(ctx context.Context, id session.ID, item session.Item) error {
	item = cloneItem(item)
	return u.do(ctx, sharedReplace, func() error {
		if kept, ok := u.state.unexpired(id); !ok || kept.Version != item.Version-1 {
			return session.ErrConflict
		}
		u.state.items[id] = item
		u.state.push(id)
		return nil
	})
}

func (u *sharedUser) Delete(ctx context.Context, id session.ID) error {
	return u.do(ctx, sharedDelete, func() error {
		u.state.remove(id)
		return nil
	})
}

func (u *sharedUser) Tagged(ctx context.Context, tag session.Tag) (ids []session.ID, err error) {
	err = u.do(ctx, sharedTagged, func() error {
		ids = u.state.tagged(tag)
		return nil
	})
	return ids, err
}

func (u *sharedUser) List(ctx context.Context, after session.ID, limit int) (ids []session.ID, err error) {
	err = u.do(ctx, sharedList, func() error {
		ids = labelledAfter(u.state.items, after, limit)
		return nil
	})
	return ids, err
}

func (u *sharedUser) Labels(ctx context.Context, ids []session.ID) (found []session.Labelled, err error) {
	err = u.do(ctx, sharedList, func() error {
		found = labelsOf(u.state.items, ids)
		return nil
	})
	return found, err
}

func (s *sharedState) remove(id session.ID) {
	delete(s.items, id)
	delete(s.leases, id)
	s.push(id)
}

func (u *sharedUser) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	return u.do(ctx, sharedDeleteAt, func() error {
		item, ok := u.state.unexpired(id)
		if !ok || item.Version != version || holder != (session.Holder{}) && u.state.leases[id].Holder != holder {
			return session.ErrConflict
		}
		u.state.remove(id)
		return nil
	})
}

func (u *sharedUser) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (lease session.Lease, err error) {
	err = u.do(ctx, sharedAcquire, func() error {
		item, ok := u.state.unexpired(id)
		switch {
		case !ok:
			return session.ErrNotFound
		case item.Version != version:
			return session.ErrConflict
		}
		if held, ok := u.state.leases[id]; ok && held != seen {
			lease = held
			return session.ErrLeased
		}
		lease = session.Lease{Holder: holder}
		u.state.leases[id] = lease
		return nil
	})
	return lease, err
}

func (u *sharedUser) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	return u.do(ctx, sharedBeat, func() error {
		if held, ok := u.state.leases[id]; !ok || held.Holder != lease.Holder {
			return session.ErrConflict
		}
		u.state.leases[id] = lease
		return nil
	})
}

func (u *sharedUser) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	return u.do(ctx, sharedRelease, func() error {
		if u.state.leases[id].Holder == holder {
			delete(u.state.leases, id)
		}
		return nil
	})
}

func (u *sharedUser) Announce(ctx context.Context, topic session.Topic, from session.Holder, note []byte) (notes [][]byte, err error) {
	err = u.do(ctx, sharedAnnounce, func() error {
		all := u.state.notes[topic]
		if all == nil {
			all = map[session.Holder]announced{}
			u.state.notes[topic] = all
		}
		all[from] = announced{note, time.Now()}
		for _, n := range all {
			if time.Since(n.at) < time.Minute {
				notes = append(notes, n.note)
			}
		}
		return nil
	})
	return notes, err
}

// instances is a rig with several processes on one shared store.
type instances struct {
	*rig
	state     *sharedState
	users     []*sharedUser
	keepers   []*Keeper
	processes []*process
}

func inBubbleWithInstances(t *testing.T, n int, f func(t *testing.T, r *instances)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &instances{rig: newRig(t), state: newSharedState()}
		for range n {
			r.add()
		}
		r.rig.store = &r.state.fakeStore
		r.rig.keeper = r.keepers[0]
		f(t, r)
	})
}

// add starts another process.
func (r *instances) add() *Keeper {
	user, p := r.state.user(), &process{}
	c := r.config
	c.Vault = NewVault(user)
	c.Refresher = r.server.client(p)
	k := mustKeeper(c)
	r.users, r.keepers, r.processes = append(r.users, user), append(r.keepers, k), append(r.processes, p)
	r.t.Cleanup(func() {
		if p.dead.Load() {
			return
		}
		user.clearFaults()
		if err := c.Vault.Close(context.Background()); err != nil {
			r.t.Errorf("closing a vault: %v", err)
		}
	})
	return k
}

// kill ends a process at once. It has no effect on the store and the server from now on.
func (r *instances) kill(i int) {
	r.processes[i].dead.Store(true)
	r.users[i].disconnect()
	r.users[i].Watch(nil)
	// The goroutines of the dead process must end.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.keepers[i].Vault.Close(ctx)
}

// freshAt sends a request to one instance. The request must succeed.
func (r *instances) freshAt(i int, secret seal.Secret) *Session {
	r.t.Helper()
	s, err := r.keepers[i].Fresh(r.t.Context(), secret)
	if err != nil {
		r.t.Fatalf("Fresh at instance %d: %v", i, err)
	}
	r.wantUsable(s)
	return s
}

// freshEverywhere sends n requests to every instance at the same time. All must succeed.
func (r *instances) freshEverywhere(n int, secret seal.Secret) {
	r.t.Helper()
	var requests sync.WaitGroup
	for i, k := range r.keepers {
		for range n {
			requests.Go(func() {
				s, err := k.Fresh(r.t.Context(), secret)
				if err != nil {
					r.t.Errorf("Fresh at instance %d: %v", i, err)
					return
				}
				r.wantUsable(s)
			})
		}
	}
	requests.Wait()
}

// wantNoLease checks that the lease of a session is free.
func (r *instances) wantNoLease(secret seal.Secret) {
	r.t.Helper()
	synctest.Wait()
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	if lease, ok := r.state.leases[r.id(secret)]; ok {
		r.t.Errorf("lease %v is held, want it free", lease)
	}
}
