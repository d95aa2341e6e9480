package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// checks are the sessions with requests in progress that may be over, because the
// store has told of a change, or because they were not used for their idle time.
type checks struct {
	mu sync.Mutex
	// pending holds true for those of which something new was heard while they
	// were being checked.
	pending map[session.ID]bool
	// Those that could not be checked must not hold up the others.
	firstSlots, retrySlots chan struct{}
}

const (
	maxFirstChecks = 512
	maxRetryChecks = 64
	checkRetry     = time.Second
)

func newChecks() checks {
	return checks{pending: map[session.ID]bool{}, firstSlots: make(chan struct{}, maxFirstChecks), retrySlots: make(chan struct{}, maxRetryChecks)}
}

// check finds out, behind the caller, whether sessions are over.
func (v *Vault) check(ids ...session.ID) {
	v.checks.mu.Lock()
	defer v.checks.mu.Unlock()
	for _, id := range ids {
		_, busy := v.checks.pending[id]
		v.checks.pending[id] = busy
		if !busy {
			v.background(func() { v.checkWithRetry(id) })
		}
	}
}

// done reports whether nothing new was heard of a session.
func (c *checks) complete(id session.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[id] {
		c.pending[id] = false
		return false
	}
	delete(c.pending, id)
	return true
}

// checkUntilKnown ends the requests of a session if that is over. While the
// store is away they go on: nobody is logged out for that. When it is back, all
// will be known.
func (v *Vault) checkWithRetry(id session.ID) {
	slots := v.checks.firstSlots
	for {
		keeper := v.live.keeperOf(id)
		if keeper == nil {
			// A request may have begun since, and have heard of a change.
			if v.checks.complete(id) {
				return
			}
			continue
		}
		slots <- struct{}{}
		err := v.checkOnce(keeper, id)
		<-slots
		if err == nil {
			if v.checks.complete(id) {
				return
			}
			continue
		}
		select {
		case <-time.After(checkRetry):
		case <-v.closing.Done():
			return
		}
		slots = v.checks.retrySlots
	}
}

// checkOne ends the requests of a session that is over, or that nothing else has
// used for its idle time, and otherwise finds out when that ends.
func (v *Vault) checkOnce(k *Keeper, id session.ID) error {
	now := time.Now() // before the last use is looked up: a later one is refused
	end, alone := v.unwrittenIdleEnd(k, id)
	if !alone {
		// Not ViewCurrent: the next change must be pushed again.
		written, err := v.idleEnd(id, v.store.View)
		if err == nil && v.shared != nil && !now.Before(latest(end, written)) {
			written, err = v.idleEnd(id, v.shared.ViewCurrent) // others may have used it
		}
		if errors.Is(err, session.ErrNotFound) {
			v.forgetSession(id)
			return nil
		}
		if err != nil {
			return err
		}
		end = latest(end, written)
	}
	if now.Before(end) {
		v.live.setIdleEnd(id, end)
	} else {
		v.live.cancelAll(id)
	}
	return nil
}

// unwrittenIdleEnd is when a session ends by its last use as far as that is not
// written yet, or the zero time. Alone: what is written does not matter.
func (v *Vault) unwrittenIdleEnd(k *Keeper, id session.ID) (end time.Time, alone bool) {
	if last := v.uses.last(id); !last.IsZero() {
		end = last.Add(k.IdleTimeout + k.useInterval)
	}
	if held := v.overlay.get(id); held != nil && !held.isEnd() {
		end = latest(end, held.rec.lastUsed.Add(k.IdleTimeout+k.useInterval))
		alone = v.shared == nil
	}
	return end, alone
}

// idleEnd is when a session ends if it is not used again, as it was written.
func (v *Vault) idleEnd(id session.ID, view func(context.Context, session.ID, func(session.Item) error) error) (end time.Time, err error) {
	ctx, cancel := context.WithTimeout(v.closing, storeTimeout)
	defer cancel()
	err = view(ctx, id, func(item session.Item) error {
		end = item.Expires.Add(-expirySlack)
		return nil
	})
	return end, err
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
