package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	// lookTimeout bounds a look at the store before a login begins.
	storeProbeTimeout = 2 * time.Second
	// probeLife is how long an item stays that was only written to find out
	// whether the store takes writes, if its deletion fails.
	probeItemLife = 10 * time.Second
)

// storeLooks finds out whether the store works before a login begins. One look
// is under way at a time, and serves all logins that begin meanwhile.
type storeProbes struct {
	mu      sync.Mutex
	current *storeProbe
	// unwritable: the last write for a login failed, and none has succeeded since.
	unwritable atomic.Bool
}

// storeLook is a look under way. Err is set before done is closed.
type storeProbe struct {
	done chan struct{}
	err  error
}

// noteWrite records what became of a write for a login.
func (l *storeProbes) recordWrite(err error) {
	if failed := err != nil && !errors.Is(err, session.ErrConflict); failed != l.unwritable.Load() {
		l.unwritable.Store(failed)
	}
}

// CanKeep returns nil if the store of new sessions seems to work, and an
// *UnavailableError otherwise, within two seconds: a login that cannot be kept is
// not worth beginning. It reads; only after a write that failed does it also
// write a small item, and deletes it again.
func (k *Keeper) CanKeep(ctx context.Context) error {
	v := k.Vault
	v.probes.mu.Lock()
	look := v.probes.current
	if look == nil {
		look = &storeProbe{done: make(chan struct{})}
		v.probes.current = look
		if !v.background(func() { v.runProbe(look) }) {
			look.err, v.probes.current = ErrClosed, nil
			close(look.done)
		}
	}
	v.probes.mu.Unlock()
	var err error
	select {
	case <-look.done:
		err = look.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return unavailable(fmt.Errorf("looking at the store before a login: %w", err))
	}
	return nil
}

func (v *Vault) runProbe(look *storeProbe) {
	ctx, cancel := context.WithTimeout(context.Background(), storeProbeTimeout)
	defer cancel()
	look.err = v.probeStore(ctx)
	v.probes.mu.Lock()
	v.probes.current = nil
	v.probes.mu.Unlock()
	close(look.done)
}

// probeStore reads what is not there, and writes if the last write failed.
func (v *Vault) probeStore(ctx context.Context) error {
	id := session.ID(seal.NewSecret()) // of which no store has a copy
	err := v.store.View(ctx, id, func(session.Item) error { return nil })
	if !errors.Is(err, session.ErrNotFound) {
		return err
	}
	if !v.probes.unwritable.Load() {
		return nil
	}
	err = v.store.Create(ctx, id, session.Item{Version: 1, Expires: time.Now().Add(probeItemLife)})
	v.probes.recordWrite(err)
	if err == nil {
		_ = v.store.Delete(ctx, id)
	}
	return err
}
