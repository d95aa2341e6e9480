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
	// storeProbeTimeout bounds a probe of the store.
	storeProbeTimeout = 2 * time.Second
	// probeItemLife is how long the item of a probe stays if its deletion fails.
	probeItemLife = 10 * time.Second
)

// storeProbes finds out whether the store works before a login begins. One probe runs at a
// time, and serves all logins that begin during it.
type storeProbes struct {
	mu      sync.Mutex
	current *storeProbe
	// unwritable is set while the last write for a login has failed.
	unwritable atomic.Bool
}

// storeProbe is a running probe. err is set before done is closed.
type storeProbe struct {
	done chan struct{}
	err  error
}

// recordWrite records whether a write for a login has failed.
func (p *storeProbes) recordWrite(err error) {
	if failed := err != nil && !errors.Is(err, session.ErrConflict); failed != p.unwritable.Load() {
		p.unwritable.Store(failed)
	}
}

// CanKeep returns nil if the store of new sessions seems to work, and an *UnavailableError
// otherwise, within two seconds: the caller should not begin a login that cannot become a
// session. CanKeep reads. Only after a failed write it also writes a small item and
// deletes it.
func (k *Keeper) CanKeep(ctx context.Context) error {
	probe := k.Vault.startProbe()
	var err error
	select {
	case <-probe.done:
		err = probe.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return unavailable(fmt.Errorf("probing the store before a login: %w", err))
	}
	return nil
}

// startProbe returns the running probe, or starts one.
func (v *Vault) startProbe() *storeProbe {
	v.probes.mu.Lock()
	defer v.probes.mu.Unlock()
	if v.probes.current != nil {
		return v.probes.current
	}
	probe := &storeProbe{done: make(chan struct{})}
	v.probes.current = probe
	if !v.background(func() { v.runProbe(probe) }) {
		probe.err, v.probes.current = ErrClosed, nil
		close(probe.done)
	}
	return probe
}

func (v *Vault) runProbe(probe *storeProbe) {
	ctx, cancel := context.WithTimeout(context.Background(), storeProbeTimeout)
	defer cancel()
	probe.err = v.probeStore(ctx)
	v.probes.mu.Lock()
	v.probes.current = nil
	v.probes.mu.Unlock()
	close(probe.done)
}

// probeStore reads an item that does not exist, and writes one if the last write failed.
func (v *Vault) probeStore(ctx context.Context) error {
	id := session.ID(seal.NewSecret()) // a new ID, which is in no copy
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
