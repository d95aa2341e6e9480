package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// soon is how long a push may take. It is long, as nobody waits for it but
// those whose store is broken.
const soon = time.Minute

// peer is a shared store as one process uses it. Its methods are steps of
// checks, as those of probe are.
type peer struct {
	session.SharedStore
	ctx    context.Context
	pushes *pushes
}

// newSharedProbe makes a probe that writes as a and reads as b, past all
// copies. The two may be one.
func newSharedProbe(a, b session.SharedStore) probe {
	p := bareProbe(crossed{Store: a, reader: b})
	p.a = newPeer(p.ctx, a)
	if p.b = p.a; a != b {
		p.b = newPeer(p.ctx, b)
	}
	return p
}

func newPeer(ctx context.Context, store session.SharedStore) peer {
	s := peer{SharedStore: store, ctx: ctx, pushes: newPushes()}
	store.Watch(s.pushes.changed)
	return s
}

// both runs a step as either process.
func (p probe) both(step func(peer) error) error {
	return errors.Join(step(p.a), step(p.b))
}

func (s peer) acquires(id session.ID, version uint64, holder session.Holder, seen session.Lease) error {
	got, err := s.Acquire(s.ctx, id, version, holder, seen)
	switch want := (session.Lease{Holder: holder}); {
	case err != nil:
		return wantNil("Acquire", err)
	case got != want:
		return fmt.Errorf("Acquire: got %s, want %s", leaseText(got), leaseText(want))
	}
	return nil
}

func (s peer) acquireFails(id session.ID, version uint64, want error) error {
	_, err := s.Acquire(s.ctx, id, version, newHolder(), session.Lease{})
	return wantErr(fmt.Sprintf("Acquire with version %d", version), err, want)
}

// leased tries to acquire and expects to be shown the lease as it is.
func (s peer) leased(id session.ID, version uint64, want, seen session.Lease) error {
	got, err := s.Acquire(s.ctx, id, version, newHolder(), seen)
	switch {
	case !errors.Is(err, session.ErrLeased):
		return wantErr("Acquire of a held lease", err, session.ErrLeased)
	case got != want:
		return fmt.Errorf("Acquire of a held lease: shows %s, want %s", leaseText(got), leaseText(want))
	}
	return nil
}

// leaseIs makes either process look at the lease.
func (p probe) leaseIs(id session.ID, version uint64, want session.Lease) error {
	return p.both(func(s peer) error { return s.leased(id, version, want, session.Lease{}) })
}

// leaseFree makes either process take the lease and give it back.
func (p probe) leaseFree(id session.ID, version uint64) error {
	return p.both(func(s peer) error {
		h := newHolder()
		if err := s.acquires(id, version, h, session.Lease{}); err != nil {
			return fmt.Errorf("the lease should be free: %w", err)
		}
		return s.releases(id, h)
	})
}

func (s peer) beats(id session.ID, lease session.Lease) error {
	return wantNil("Beat", s.Beat(s.ctx, id, lease))
}

func (s peer) beatConflicts(id session.ID, lease session.Lease) error {
	return wantErr("Beat", s.Beat(s.ctx, id, lease), session.ErrConflict)
}

func (s peer) releases(id session.ID, holder session.Holder) error {
	return wantNil("Release", s.Release(s.ctx, id, holder))
}

func (s peer) deletesAt(id session.ID, version uint64, holder session.Holder) error {
	return wantNil("DeleteAt", s.DeleteAt(s.ctx, id, version, holder))
}

func (s peer) deleteAtConflicts(id session.ID, version uint64, holder session.Holder) error {
	return wantErr(fmt.Sprintf("DeleteAt with version %d", version),
		s.DeleteAt(s.ctx, id, version, holder), session.ErrConflict)
}

// version reads as View or ViewCurrent does. It returns 0 if there is no item.
func version(ctx context.Context, view viewFunc, id session.ID) (v uint64, err error) {
	err = view(ctx, id, func(item session.Item) error {
		v = item.Version
		return nil
	})
	if errors.Is(err, session.ErrNotFound) {
		return 0, nil
	}
	return v, err
}

type viewFunc = func(context.Context, session.ID, func(session.Item) error) error

// until reads with View until want says that the version is right. Whenever it
// is not, changed has to be called after that: then the copy was out of date,
// and may not be handed out any more.
func (s peer) until(id session.ID, want func(version uint64) (bool, error)) error {
	for {
		told := s.pushes.count(id)
		got, err := version(s.ctx, s.View, id)
		if err != nil {
			return wantNil("View", err)
		}
		if right, err := want(got); right || err != nil {
			return err
		}
		if !s.pushes.moreThan(told, id) {
			return fmt.Errorf("View shows version %d (0: none), which is out of date, and changed is not called any more", got)
		}
	}
}

// pushes notes what a process was told through Watch.
type pushes struct {
	mu   sync.Mutex
	of   map[session.ID]int
	any  int           // pushes that were not of single items
	next chan struct{} // closed by the next push
}

func newPushes() *pushes {
	return &pushes{of: map[session.ID]int{}, next: make(chan struct{})}
}

func (p *pushes) changed(ids []session.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ids == nil {
		p.any++
	}
	for _, id := range ids {
		p.of[id]++
	}
	close(p.next)
	p.next = make(chan struct{})
}

// count returns how many pushes have told of this item.
func (p *pushes) count(id session.ID) int {
	n, _ := p.look(id)
	return n
}

func (p *pushes) look(id session.ID) (n int, next <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.any + p.of[id], p.next
}

// moreThan waits until there were more than n pushes for this item, and reports
// false if that does not happen soon.
func (p *pushes) moreThan(n int, id session.ID) bool {
	timeout := time.NewTimer(soon)
	defer timeout.Stop()
	for {
		got, next := p.look(id)
		if got > n {
			return true
		}
		select {
		case <-next:
		case <-timeout.C:
			return false
		}
	}
}

// crossed writes to one store and reads from another, past its copies.
type crossed struct {
	session.Store
	reader session.SharedStore
}

func (c crossed) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return c.reader.ViewCurrent(ctx, id, f)
}

func (c crossed) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return c.reader.Tagged(ctx, tag)
}

// settled writes to one store and reads from another, maybe from its copies. A
// write returns when the reader's View has caught up.
type settled struct {
	session.Store
	reader peer
}

func (s settled) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.reader.View(ctx, id, f)
}

func (s settled) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return s.reader.Tagged(ctx, tag)
}

func (s settled) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.settle(id, s.Store.Create(ctx, id, item))
}

func (s settled) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.settle(id, s.Store.Replace(ctx, id, item))
}

func (s settled) Delete(ctx context.Context, id session.ID) error {
	return s.settle(id, s.Store.Delete(ctx, id))
}

func (s settled) settle(id session.ID, err error) error {
	if err != nil {
		return err
	}
	return s.reader.until(id, func(got uint64) (bool, error) {
		current, err := version(s.reader.ctx, s.reader.ViewCurrent, id)
		return got == current, wantNil("ViewCurrent", err)
	})
}

func newHolder() session.Holder {
	var h session.Holder
	_, _ = rand.Read(h[:]) // never fails
	return h
}

func leaseText(l session.Lease) string {
	return fmt.Sprintf("the lease of %x with beat %d", l.Holder[:4], l.Beat)
}
