package keeper

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// Vault is one store, and the state that all keepers on it share in this process:
// refreshes in progress, unwritten records, back-offs after failures, and requests in
// progress. It outlives a reload of the configuration, during which the keepers of the
// old and of the new configuration use one vault.
type Vault struct {
	store  session.Store
	shared session.SharedStore // the store if other processes use it too, else nil

	mu         sync.Mutex
	flights    map[session.ID]*flight
	breakers   map[string]*breaker       // by the name of the authorization server
	heldLeases map[session.ID]*heldLease // leases that this process has
	// useIntervals has the shortest use interval of each site (see shareInterval).
	useIntervals map[session.ID]*atomic.Int64
	running      sync.WaitGroup // refreshes, writes of uses, retries and checks

	backoffs backoffs

	overlay overlay
	cache   recordCache
	live    liveRequests
	uses    uses
	waiters waiters
	checks  checks
	logins  loginRuns
	probes  storeProbes

	// closing is cancelled when Close begins: goroutines that wait for their next try
	// wake up, and no new ones start. closed is cancelled when Close returns: leases
	// are not renewed after that.
	closing, closed             context.Context
	startClosing, finishClosing context.CancelFunc
}

// NewVault returns a vault on a store, which must not be nil: New refuses a vault
// without one. The caller closes the vault, and the store after it.
func NewVault(store session.Store) *Vault {
	v := &Vault{
		store: store, flights: map[session.ID]*flight{}, breakers: map[string]*breaker{},
		heldLeases: map[session.ID]*heldLease{}, useIntervals: map[session.ID]*atomic.Int64{}, checks: newChecks(),
	}
	v.closing, v.startClosing = context.WithCancel(context.Background())
	v.closed, v.finishClosing = context.WithCancel(context.Background())
	v.live.checkIdle = v.check
	if shared, ok := store.(session.SharedStore); ok {
		v.shared = shared
		shared.Watch(v.itemsChanged)
	}
	return v
}

// Close refuses new refreshes, waits until the refreshes in progress are committed, and
// tries once more to write the unwritten records and uses. If ctx ends first, Close
// returns its error.
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

// background runs f on a goroutine that Close waits for. Once the vault is closing, it
// does not run f and returns false.
func (v *Vault) background(f func()) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closing.Err() != nil {
		return false
	}
	v.running.Go(f)
	return true
}
