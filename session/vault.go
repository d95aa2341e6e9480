package session

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Vault is one store and what all keepers on it share in this process: the
// refreshes under way, the writes that have not landed, the pauses after
// failures and the requests in progress. It outlives a reload of the
// configuration, during which an old and a new keeper work side by side.
type Vault struct {
	store  Store
	shared SharedStore // store, if other processes use it too; or nil

	mu      sync.Mutex
	flights map[ID]*flight
	pauses  map[ID]pause
	holds   map[ID]*hold // leases that this process has
	closed  bool
	running sync.WaitGroup // flights, touches, retries and checks

	overlay overlay
	opened  openedRecords
	live    live
	uses    uses
	ears    ears
	checks  checks
	logins  loginRuns
	looks   storeLooks

	// stop is cancelled by Close, to wake what waits for its next try; over when
	// Close returns, for what must not go on after that.
	stop, over     context.Context
	cancel, finish context.CancelFunc
}

// NewVault returns a vault on a store. The caller closes the store after the
// vault.
func NewVault(store Store) *Vault {
	v := &Vault{store: store, flights: map[ID]*flight{}, pauses: map[ID]pause{}, holds: map[ID]*hold{}, checks: newChecks()}
	v.stop, v.cancel = context.WithCancel(context.Background())
	v.over, v.finish = context.WithCancel(context.Background())
	v.live.idle = v.checkIdle
	if shared, ok := store.(SharedStore); ok {
		v.shared = shared
		shared.Watch(v.changed)
	}
	return v
}

// Close waits until the refreshes under way have been committed, tries once
// more to write what could not be written, and then refuses new ones. It
// gives up when ctx ends and returns its error.
func (v *Vault) Close(ctx context.Context) error {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.cancel()
	v.uses.flush(v)
	defer v.finish()
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

// pause keeps refreshes of one session back after a failure.
type pause struct {
	until    time.Time
	failures int
	err      *UnavailableError
	// unanswered: a refresh token was sent, and nobody knows what became of it.
	unanswered bool
}

// background runs f unless the vault is closed, and lets Close wait for it. It
// reports whether it does.
func (v *Vault) background(f func()) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.running.Go(f)
	}
	return !v.closed
}

const (
	pauseFirst = time.Second
	pauseMax   = 30 * time.Second
	// pausesKept bounds how many sessions that nobody asks for any more keep
	// the count of their failures.
	pausesKept = 4096
)

// pauseAfter notes a failure and returns how long to wait: doubling from 1 s
// to 30 s, plus a spread of up to a quarter, and never less than the server
// asked for.
func (v *Vault) pauseAfter(id ID, failure *UnavailableError, unanswered bool, spread float64) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.pauses[id]
	wait := min(pauseFirst<<min(p.failures, 5), pauseMax)
	wait += time.Duration(spread * float64(wait) / 4)
	wait = max(wait, failure.RetryAfter)
	failure.RetryAfter = wait
	now := time.Now()
	if len(v.pauses) >= pausesKept {
		maps.DeleteFunc(v.pauses, func(_ ID, p pause) bool { return now.After(p.until) })
	}
	v.pauses[id] = pause{until: now.Add(wait), failures: p.failures + 1, err: failure, unanswered: unanswered || p.unanswered}
	return wait
}

// lastUnanswered reports whether a refresh of this session got no answer since
// the last one that did.
func (v *Vault) lastUnanswered(id ID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pauses[id].unanswered
}

// resume forgets the failures of a session.
func (v *Vault) resume(id ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.pauses, id)
}
