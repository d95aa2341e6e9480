package keeper

import (
	"context"
	"sync"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// Vault is one store and what all keepers on it share in this process: the
// refreshes under way, the writes that have not landed, the back-offs after
// failures and the requests in progress. It outlives a reload of the
// configuration, during which an old and a new keeper work side by side.
type Vault struct {
	store  session.Store
	shared session.SharedStore // store, if other processes use it too; or nil

	mu         sync.Mutex
	flights    map[session.ID]*flight
	breakers   map[string]*breaker       // by the name of the authorization server
	heldLeases map[session.ID]*heldLease // leases that this process has
	running    sync.WaitGroup            // flights, touches, retries and checks

	backoffs backoffs

	overlay overlay
	cache   recordCache
	live    liveRequests
	uses    uses
	waiters waiters
	checks  checks
	logins  loginRuns
	probes  storeProbes

	// closing is cancelled when Close begins: what waits for its next try wakes up, and
	// nothing new starts. closed is cancelled when Close returns, for leases, which
	// must not be renewed after that.
	closing, closed             context.Context
	startClosing, finishClosing context.CancelFunc
}

// NewVault returns a vault on a store, which must not be nil: New refuses a
// vault without one. The caller closes the store after the vault.
func NewVault(store session.Store) *Vault {
	v := &Vault{store: store, flights: map[session.ID]*flight{}, breakers: map[string]*breaker{}, heldLeases: map[session.ID]*heldLease{}, checks: newChecks()}
	v.closing, v.startClosing = context.WithCancel(context.Background())
	v.closed, v.finishClosing = context.WithCancel(context.Background())
	v.live.checkIdle = v.check
	if shared, ok := store.(session.SharedStore); ok {
		v.shared = shared
		shared.Watch(v.itemsChanged)
	}
	return v
}

// Close waits until the refreshes under way have been committed, tries once
// more to write what could not be written, and then refuses new ones. It
// gives up when ctx ends and returns its error.
func (v *Vault) Close(ctx context.Context) error {
	v.mu.Lock()
	v.startClosing()
	v.mu.Unlock()
	v.uses.flush(v)
	defer v.finishClosing()
	done := make(chan struct{})
	go func() {
		v.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// background runs f unless the vault is closed, and lets Close wait for it. It
// reports whether it does.
func (v *Vault) background(f func()) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closing.Err() != nil {
		return false
	}
	v.running.Go(f)
	return true
}
