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

// pushTimeout limits the time of a push. Only the test of a broken store waits that long.
const pushTimeout = time.Minute

// peer is a shared store as one process uses it. Each method is one step of a check,
// like the methods of probe.
type peer struct {
	session.SharedStore
	ctx    context.Context
	pushes *pushes
}

// newSharedProbe returns a probe that writes to a and reads from b with ViewCurrent. The
// two may be the same store.
func newSharedProbe(a, b session.SharedStore) probe {
	p := bareProbe(currentReader{Store: a, reader: b})
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

// both runs a step as process a, and then as process b.
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

// leased calls Acquire and expects ErrLeased with the given lease.
func (s peer) leased(id session.ID, version uint64, want, seen session.Lease) error {
	got, err := s.Acquire(s.ctx, id, version, newHolder(), seen)
	switch {
	case !errors.Is(err, session.ErrLeased):
		return wantErr("Acquire of a held lease", err, session.ErrLeased)
	case got != want:
		return fmt.Errorf("Acquire of a held lease: got %s, want %s", leaseText(got), leaseText(want))
	}
	return nil
}

// leaseIs checks the lease as both processes see it.
func (p probe) leaseIs(id session.ID, version uint64, want session.Lease) error {
	return p.both(func(s peer) error { return s.leased(id, version, want, session.Lease{}) })
}

// leaseFree checks that both processes can acquire the lease, and releases it.
func (p probe) leaseFree(id session.ID, version uint64) error {
	return p.both(func(s peer) error {
		h := newHolder()
		if err := s.acquires(id, version, h, session.Lease{}); err != nil {
			return fmt.Errorf("acquiring a free lease: %w", err)
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

// version returns the version of an item read with View or ViewCurrent, or 0 if there is
// no item.
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

// until reads with View until done accepts the version. Any other version is an outdated
// copy, so the store must call changed after it has returned the copy.
func (s peer) until(id session.ID, done func(version uint64) (bool, error)) error {
	for {
		before := s.pushes.count(id)
		got, err := version(s.ctx, s.View, id)
		if err != nil {
			return wantNil("View", err)
		}
		if ok, err := done(got); ok || err != nil {
			return err
		}
		if !s.pushes.moreThan(before, id) {
			return fmt.Errorf("View: got outdated version %d (0 means none) and no call of changed within %v", got, pushTimeout)
		}
	}
}

// pushes counts the calls of changed in one process.
type pushes struct {
	mu   sync.Mutex
	ids  map[session.ID]int
	nils int           // calls with nil: any item may have changed
	next chan struct{} // closed by the next call
}

func newPushes() *pushes {
	return &pushes{ids: map[session.ID]int{}, next: make(chan struct{})}
}

func (p *pushes) changed(ids []session.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ids == nil {
		p.nils++
	}
	for _, id := range ids {
		p.ids[id]++
	}
	close(p.next)
	p.next = make(chan struct{})
}

// count returns the number of calls that concern this item.
func (p *pushes) count(id session.ID) int {
	n, _ := p.state(id)
	return n
}

// state returns the number of calls, and a channel that the next call closes.
func (p *pushes) state(id session.ID) (n int, next <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nils + p.ids[id], p.next
}

// moreThan waits for more than n calls that concern this item. It returns false after
// pushTimeout.
func (p *pushes) moreThan(n int, id session.ID) bool {
	timeout := time.NewTimer(pushTimeout)
	defer timeout.Stop()
	for {
		got, next := p.state(id)
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

// currentReader writes to one store and reads from another with ViewCurrent.
type currentReader struct {
	session.Store
	reader session.SharedStore
}

func (c currentReader) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return c.reader.ViewCurrent(ctx, id, f)
}

func (c currentReader) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return c.reader.Tagged(ctx, tag)
}

// copyReader writes to one store and reads from another with View, which may return
// copies. A write returns after View shows its result.
type copyReader struct {
	session.Store
	reader peer
}

func (s copyReader) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.reader.View(ctx, id, f)
}

func (s copyReader) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return s.reader.Tagged(ctx, tag)
}

func (s copyReader) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.awaitCopy(id, s.Store.Create(ctx, id, item))
}

func (s copyReader) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.awaitCopy(id, s.Store.Replace(ctx, id, item))
}

func (s copyReader) Delete(ctx context.Context, id session.ID) error {
	return s.awaitCopy(id, s.Store.Delete(ctx, id))
}

// awaitCopy waits until View shows the same version as ViewCurrent, if the write returned
// nil.
func (s copyReader) awaitCopy(id session.ID, err error) error {
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
