package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// checks holds the sessions with requests in progress that may have ended: the store
// reported a change, or they were not used for their idle time.
type checks struct {
	mu sync.Mutex
	// pending has the sessions that are being checked. The value is true if another
	// change was reported during the check.
	pending map[session.ID]bool
	// Checks after a failure have slots of their own, so that they do not delay first
	// checks.
	firstSlots, retrySlots chan struct{}
}

const (
	maxFirstChecks = 512 // at a time
	maxRetryChecks = 64  // at a time
	checkRetry     = time.Second
)

func newChecks() checks {
	return checks{
		pending:    map[session.ID]bool{},
		firstSlots: make(chan struct{}, maxFirstChecks),
		retrySlots: make(chan struct{}, maxRetryChecks),
	}
}

// check finds out in the background whether sessions have ended.
func (v *Vault) check(ids ...session.ID) {
	v.checks.mu.Lock()
	defer v.checks.mu.Unlock()
	for _, id := range ids {
		_, running := v.checks.pending[id]
		v.checks.pending[id] = running
		if !running {
			v.background(func() { v.checkWithRetry(id) })
		}
	}
}

// complete ends the check of a session and returns true, unless another change was
// reported during the check.
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

// checkWithRetry ends the requests of a session if the session has ended. While the store
// fails, the requests go on and the check is repeated: an outage logs no user out.
func (v *Vault) checkWithRetry(id session.ID) {
	slots := v.checks.firstSlots
	for {
		keeper := v.live.keeperOf(id)
		if keeper == nil {
			// A request may have begun in the meantime, and have seen a change.
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

// checkOnce ends the requests of a session if the session has ended, or if no other
// request has used it for its idle time. Otherwise it schedules the next idle check.
func (v *Vault) checkOnce(k *Keeper, id session.ID) error {
	if v.shared != nil {
		v.updateExpiry(id)
	}
	// The time is taken before the last use is read. A use after it comes too late: the
	// session has ended for that request, too.
	now := time.Now()
	end, complete := v.unwrittenIdleEnd(k, id, now)
	if !complete {
		// View, because ViewCurrent does not subscribe to the next change.
		written, err := v.idleEnd(id, v.store.View)
		if err == nil && v.shared != nil && !now.Before(latest(end, written)) {
			// Another process may have used the session after this copy.
			written, err = v.idleEnd(id, v.shared.ViewCurrent)
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

// updateExpiry moves the end of a session's requests in progress, if another process has
// moved that of the session. The item does not show it: Expires may be that of the idle
// time. An error is left to the caller's own reading of the item.
func (v *Vault) updateExpiry(id session.ID) {
	k, ref := v.live.opener(id)
	if k == nil {
		return
	}
	ctx, cancel := context.WithTimeout(v.closing, storeTimeout)
	defer cancel()
	if h, err := k.readHot(ctx, ref); err == nil {
		v.live.setExpiry(id, h.sessionExpiry)
	}
}

// unwrittenIdleEnd returns when the idle time of a session ends by uses that are not
// written yet, requests in progress included, or the zero time. complete means that the
// store has no later use.
func (v *Vault) unwrittenIdleEnd(k *Keeper, id session.ID, now time.Time) (end time.Time, complete bool) {
	if last := v.lastUse(id, now); !last.IsZero() {
		end = last.Add(k.IdleTimeout + k.useInterval)
	}
	if entry := v.overlay.get(id); entry != nil && !entry.isEnd() {
		end = latest(end, entry.rec.lastUsed.Add(k.IdleTimeout+k.useInterval))
		complete = v.shared == nil
	}
	return end, complete
}

// idleEnd returns when the idle time of a session ends by its item in the store.
func (v *Vault) idleEnd(id session.ID, view viewFunc) (end time.Time, err error) {
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
