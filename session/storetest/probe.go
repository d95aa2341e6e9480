package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// probe is a store under test. Each method is one step of a check: it makes a call, and
// returns an error if the store's answer is not the one in the name of the method.
type probe struct {
	ctx   context.Context
	store session.Store
	// start is a whole second, which is the precision that a store must keep.
	start time.Time
	// a and b are two processes on the same data. They are set in the checks of shared
	// stores only. The field store then writes to a and reads from b.
	a, b peer
}

// newProbe returns a probe of a store that one process uses. With a shared store, each
// write of the probe waits until View shows its result.
func newProbe(store session.Store) probe {
	if shared, ok := store.(session.SharedStore); ok {
		p := newSharedProbe(shared, shared)
		p.store = copyReader{Store: shared, reader: p.b}
		return p
	}
	return bareProbe(store)
}

func bareProbe(store session.Store) probe {
	// The context of a testing.T would end before the cleanups run, perhaps during a
	// call of the store.
	return probe{ctx: context.Background(), store: store, start: time.Now().Truncate(time.Second)}
}

// hours returns the time n hours after the check began.
func (p probe) hours(n int) time.Time {
	return p.start.Add(time.Duration(n) * time.Hour)
}

// item returns an item that expires in an hour.
func (p probe) item(version uint64, value string) session.Item {
	return session.Item{Version: version, Expires: p.hours(1), Value: []byte(value)}
}

// expired returns an item that has expired.
func (p probe) expired(version uint64) session.Item {
	return session.Item{Version: version, Expires: p.hours(-1), Value: []byte("too old")}
}

func (p probe) creates(id session.ID, item session.Item) error {
	return wantNil("Create", p.store.Create(p.ctx, id, item))
}

func (p probe) createConflicts(id session.ID, item session.Item) error {
	return wantErr("Create", p.store.Create(p.ctx, id, item), session.ErrConflict)
}

func (p probe) replaces(id session.ID, item session.Item) error {
	return wantNil(replaceCall(item), p.store.Replace(p.ctx, id, item))
}

func (p probe) replaceConflicts(id session.ID, item session.Item) error {
	return wantErr(replaceCall(item), p.store.Replace(p.ctx, id, item), session.ErrConflict)
}

func (p probe) deletes(id session.ID) error {
	return wantNil("Delete", p.store.Delete(p.ctx, id))
}

// holds checks that View shows the item want.
func (p probe) holds(id session.ID, want session.Item) error {
	calls := 0
	var difference error
	err := p.store.View(p.ctx, id, func(got session.Item) error {
		calls++
		difference = sameItem(got, want)
		return nil
	})
	switch {
	case err != nil:
		return wantNil("View", err)
	case calls != 1:
		return fmt.Errorf("View: got %d calls of f, want 1", calls)
	case difference != nil:
		return fmt.Errorf("View: %w", difference)
	}
	return nil
}

// lacks checks that View returns ErrNotFound.
func (p probe) lacks(id session.ID) error {
	called := false
	err := p.store.View(p.ctx, id, func(session.Item) error {
		called = true
		return nil
	})
	if called {
		return errors.New("View of a missing item: got a call of f, want none")
	}
	return wantErr("View", err, session.ErrNotFound)
}

func replaceCall(item session.Item) string {
	return fmt.Sprintf("Replace with version %d", item.Version)
}

func wantNil(call string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: got error %w, want nil", call, err)
	}
	return nil
}

func wantErr(call string, got, want error) error {
	switch {
	case got == nil:
		return fmt.Errorf("%s: got nil, want error %w", call, want)
	case !errors.Is(got, want):
		return fmt.Errorf("%s: got error %q, want %q", call, got, want)
	}
	return nil
}

func sameItem(got, want session.Item) error {
	switch {
	case got.Version != want.Version:
		return fmt.Errorf("got version %d, want %d", got.Version, want.Version)
	case !got.Expires.Equal(want.Expires):
		return fmt.Errorf("version %d: got Expires %v, want %v", got.Version, got.Expires, want.Expires)
	case !bytes.Equal(got.Value, want.Value):
		return fmt.Errorf("version %d: got another value than was written, with %d bytes, want %d",
			got.Version, len(got.Value), len(want.Value))
	}
	return nil
}

func newID() session.ID {
	var id session.ID
	_, _ = rand.Read(id[:]) // never fails
	return id
}
