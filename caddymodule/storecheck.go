package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// checkItemLife is how long the item of a check stays if its deletion fails.
const checkItemLife = 10 * time.Second

// check does with one small item what a login, a refresh and a logout do. The item has no
// label, so no list of sessions contains it. Checks at the same time share one.
func (s *lazyStore) check(ctx context.Context) error {
	done := s.checking.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		return nil, s.tryAll(ctx)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("checking store: %w", ctx.Err())
	}
}

func (s *lazyStore) tryAll(ctx context.Context) (err error) {
	defer func() {
		// No request is around this call, so a panic of a store would end the process.
		if r := recover(); r != nil {
			err = fmt.Errorf("checking store: it panicked: %v", r)
		}
	}()
	store, err := s.get(ctx)
	if err != nil {
		return err
	}
	secret := seal.NewSecret()
	id, tag := session.ID(secret), session.Tag(seal.NewSecret())
	item := session.Item{Version: 1, Expires: time.Now().Add(checkItemLife), Value: []byte("check"), Tags: []session.Tag{tag}}
	if err := store.Create(ctx, id, item); err != nil {
		return err
	}
	err = tryItem(ctx, store, id, item)
	if deleted := store.Delete(ctx, id); err == nil {
		err = deleted
	}
	return err
}

// tryItem reads and changes an item that exists.
func tryItem(ctx context.Context, store session.Store, id session.ID, item session.Item) error {
	seen := 0
	count := func(session.Item) error { seen++; return nil }
	if err := store.View(ctx, id, count); err != nil {
		return err
	}
	if shared, ok := store.(session.SharedStore); ok {
		if err := shared.ViewCurrent(ctx, id, count); err != nil {
			return err
		}
		if err := tryLease(ctx, shared, id, item.Version); err != nil {
			return err
		}
	}
	item.Version++
	if err := store.Replace(ctx, id, item); err != nil {
		return err
	}
	found, err := store.Tagged(ctx, item.Tags[0])
	if err != nil {
		return err
	}
	if seen == 0 || len(found) != 1 || found[0] != id {
		return errors.New("the store does not find what was written to it a moment before")
	}
	if _, err := store.List(ctx, session.ID{}, 1); err != nil {
		return err
	}
	_, err = store.Labels(ctx, []session.ID{id})
	return err
}

// tryLease takes the lease of an item and gives it back.
func tryLease(ctx context.Context, store session.SharedStore, id session.ID, version uint64) error {
	var holder session.Holder
	secret := seal.NewSecret()
	copy(holder[:], secret[:])
	lease, err := store.Acquire(ctx, id, version, holder, session.Lease{})
	if err != nil {
		return err
	}
	lease.Beat++
	if err := store.Beat(ctx, id, lease); err != nil {
		return err
	}
	return store.Release(ctx, id, holder)
}
