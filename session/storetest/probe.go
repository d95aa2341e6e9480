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

// probe is a store under test. Each method is one step of a check: it makes a
// call, and returns an error if the answer is not the one its name says.
type probe struct {
	ctx   context.Context
	store session.Store
	// start is a whole second: a store may keep Expires no finer.
	start time.Time
	// a and b are the same data as two processes use it. They are there in the
	// checks of shared stores only; store then writes as a and reads as b.
	a, b peer
}

// newProbe makes a probe of a store that one process uses. If it is a shared
// one, its own copies are given the time to follow its writes.
func newProbe(store session.Store) probe {
	if shared, ok := store.(session.SharedStore); ok {
		p := newSharedProbe(shared, shared)
		p.store = settled{Store: shared, reader: p.b}
		return p
	}
	return bareProbe(store)
}

func bareProbe(store session.Store) probe {
	// Not the context of a testing.T: that ends before the cleanups run, and
	// the store may still be busy with a call then.
	return probe{ctx: context.Background(), store: store, start: time.Now().Truncate(time.Second)}
}

// hours returns the time n hours after the check began.
func (p probe) hours(n int) time.Time {
	return p.start.Add(time.Duration(n) * time.Hour)
}

// item makes an item that lives for an hour.
func (p probe) item(version uint64, value string) session.Item {
	return session.Item{Version: version, Expires: p.hours(1), Value: []byte(value)}
}

// expired makes an item whose time is already over.
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

// holds reads id and compares what the store has with want.
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
		return fmt.Errorf("View: returned nil and called f %d times, want once", calls)
	case difference != nil:
		return fmt.Errorf("View: %w", difference)
	}
	return nil
}

// lacks reads id and expects nothing.
func (p probe) lacks(id session.ID) error {
	called := false
	err := p.store.View(p.ctx, id, func(session.Item) error {
		called = true
		return nil
	})
	if called {
		return errors.New("View: called f, although there is no item")
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
		return fmt.Errorf("item has version %d, want %d", got.Version, want.Version)
	case !got.Expires.Equal(want.Expires):
		return fmt.Errorf("item of version %d expires at %v, want %v", got.Version, got.Expires, want.Expires)
	case !bytes.Equal(got.Value, want.Value):
		return fmt.Errorf("item of version %d has another value than was written (%d bytes, want %d)",
			got.Version, len(got.Value), len(want.Value))
	}
	return nil
}

func newID() session.ID {
	var id session.ID
	_, _ = rand.Read(id[:]) // never fails
	return id
}
