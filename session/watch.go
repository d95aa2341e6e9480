package session

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ears wake the refreshes that wait for another process.
type ears struct {
	mu  sync.Mutex
	all map[ID]chan struct{}
}

// listen returns a channel that tells of changes of a session. There is one
// refresh of a session at a time, hence one ear.
func (e *ears) listen(id ID) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[ID]chan struct{}{}
	}
	ear := make(chan struct{}, 1)
	e.all[id] = ear
	return ear
}

func (e *ears) leave(id ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, id)
}

// wake tells who listens to these sessions, or with nil to any.
func (e *ears) wake(ids []ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ids == nil {
		for _, ear := range e.all {
			ring(ear)
		}
	}
	for _, id := range ids {
		ring(e.all[id])
	}
}

// ring does nothing for a nil ear, or one that was told already.
func ring(ear chan struct{}) {
	select {
	case ear <- struct{}{}:
	default:
	}
}

// changed is what a shared store calls when items were written or removed.
// Where requests are in progress it is found out whether their session is over:
// what a logout at another instance means for a WebSocket here.
func (v *Vault) changed(ids []ID) {
	v.ears.wake(ids)
	if ids := v.live.changed(ids); len(ids) > 0 {
		v.check(ids...)
	}
}

// checks are the sessions with requests in progress that may be over.
type checks struct {
	mu      sync.Mutex
	pending map[ID]struct{}
	busy    bool
}

const (
	checksAtOnce = 16
	checkRetry   = time.Second
)

// check finds out, behind the caller, whether sessions are over.
func (v *Vault) check(ids ...ID) {
	v.checks.mu.Lock()
	defer v.checks.mu.Unlock()
	if v.checks.pending == nil {
		v.checks.pending = map[ID]struct{}{}
	}
	for _, id := range ids {
		v.checks.pending[id] = struct{}{}
	}
	if !v.checks.busy {
		v.checks.busy = true
		v.background(v.checkUntilDone)
	}
}

// take returns all that is pending.
func (c *checks) take() map[ID]struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	pending := c.pending
	c.pending = nil
	c.busy = len(pending) > 0
	return pending
}

func (v *Vault) checkUntilDone() {
	for {
		pending := v.checks.take()
		if len(pending) == 0 {
			return
		}
		failed := v.checkAll(pending)
		if len(failed) == 0 {
			continue
		}
		// The store is away, and the requests go on: nobody is logged out for
		// that. When it is back, all will be known.
		select {
		case <-time.After(checkRetry):
			v.check(failed...)
		case <-v.stop.Done():
			return
		}
	}
}

// checkAll ends the requests of those sessions that are over, and returns those
// of which the store could not tell.
func (v *Vault) checkAll(ids map[ID]struct{}) (failed []ID) {
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, checksAtOnce)
	for id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if v.checkOne(id) != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, id)
			}
		})
	}
	all.Wait()
	return failed
}

func (v *Vault) checkOne(id ID) error {
	ctx, cancel := context.WithTimeout(v.stop, storeTimeout)
	defer cancel()
	// Not ViewCurrent: the next change must be pushed again.
	err := v.store.View(ctx, id, func(Item) error { return nil })
	if errors.Is(err, ErrNotFound) {
		v.forget(id)
		return nil
	}
	return err
}
