package keeper

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	// leaseWait bounds how long a refresh waits before it is sent: for a slot at the
	// authorization server, and for another process that has the lease.
	leaseWait = time.Minute
	// sendTimeout bounds one request to the authorization server: 10 s for the
	// connection, then a minute for the answer, and some margin.
	sendTimeout = 75 * time.Second
	// redeemTimeout bounds the part of a refresh that holds the lease: two requests
	// that are each repeated once, the verification of the ID token, and the store.
	redeemTimeout = 4*sendTimeout + time.Minute
	// maxRefreshTime bounds how long a use of the session waits to be written with the
	// new tokens.
	maxRefreshTime = leaseWait + redeemTimeout
	// immediateRetries is how often a refresh starts again without a pause after a
	// conflict. A few conflicts are a race; more mean that the session keeps changing.
	immediateRetries = 3
	// minRefreshInterval is the shortest time between two refreshes of one session,
	// whatever lifetime the server gives its tokens and whatever the clock says.
	minRefreshInterval = time.Second
)

// refresh is one refresh, from reading the record to committing the new one. A session
// has one at a time in a process. It does not end with the request that starts it: if the
// client hung up, a token that the server has already rotated would be lost.
type refresh struct {
	*Keeper
	flight    *flight
	ref       seal.Ref
	demand    demand
	startedAt time.Time
	// values has the values of the request that starts the refresh, for tracing. It never
	// ends.
	values context.Context //nolint:containedctx // of this one task
	lease  *heldLease      // of the current try
	// probe and clientProbe are the times at which this refresh became the probe of the
	// circuit of its server and of its client. They identify the probe. Zero: it is none.
	probe, clientProbe time.Time
	// keepLeaseFor is how long the lease stays held after the refresh.
	keepLeaseFor time.Duration
}

// retryOnConflict tries to refresh the session until no other process interferes, and
// for leaseWait at most.
func (r *refresh) retryOnConflict() (hot, error) {
	ctx, cancel := context.WithTimeout(r.values, leaseWait)
	defer cancel()
	for tries := 1; ; tries++ {
		read := r.read
		if tries == 1 {
			read = r.readCopy // acquire detects an outdated copy
		}
		h, err := r.try(ctx, read)
		if !errors.Is(err, errStale) {
			return h, err
		}
		if tries > immediateRetries && !sleep(ctx, renewInterval) {
			return hot{}, unavailable(errStale)
		}
	}
}

// try refreshes the session once. ctx bounds the time until it has the lease. The error is
// errStale if another process has changed the session or taken the lease.
func (r *refresh) try(ctx context.Context, read func(context.Context, seal.Ref) (*record, error)) (hot, error) {
	rec, err := read(ctx, r.ref)
	if err != nil {
		return hot{}, err
	}
	now := time.Now()
	if reason := r.endReason(r.ref.ID, &rec.hot, now); reason != "" {
		return hot{}, r.endSessionAt(ctx, r.ref.ID, rec.version, session.Holder{}, ending{reason, rec.subject})
	}
	// The request may have read an older record: the previous flight, or another
	// instance, may have refreshed since.
	if !rec.due(now) && r.demand.metBy(&rec.token, now) {
		return rec.hot, nil
	}
	if rec.refreshToken == "" {
		return r.notRefreshable(ctx, rec, now)
	}
	if rec.token.refreshAt.IsZero() {
		rec.unclear = true // an earlier release stored an unclear aborted this way
	}
	if rec.unclear && rec.token.usable(now) && !rec.due(now) {
		return hot{}, ErrNotRefreshable
	}
	if r.Vault.shared != nil && r.Vault.hasUnwritten(r.ref.ID) {
		return hot{}, unavailable(errors.New("the tokens of the last refresh are not written yet"))
	}
	if !sleep(ctx, pauseBeforeRefresh(rec, now)) {
		return hot{}, unavailable(ctx.Err())
	}
	if err := r.acquire(ctx, rec); err != nil {
		return hot{}, err
	}
	defer r.releaseSlot()
	defer func() { r.lease.refreshDoneAfter(r.keepLeaseFor) }()
	if r.lease != nil && r.lease.tookOver {
		r.Observe(Event{Kind: EventLeaseTaken, ID: r.ref.ID, Subject: rec.subject})
	}
	// A refresh token that has expired by the server's own word is not sent any more. The
	// session ends with its access token.
	switch now = time.Now(); {
	case rec.refreshExpired(now) && rec.token.usable(now):
		return hot{}, ErrNotRefreshable
	case rec.refreshExpired(now):
		return hot{}, r.endSessionAt(ctx, r.ref.ID, rec.version, r.lease.holder(), ending{EndRefreshExpired, rec.subject})
	}
	// A request has caused this refresh, so the session was used then, unless the request
	// is passive. A last use in the future comes from a clock that ran ahead, and would
	// delay the idle time-out.
	if !r.demand.passive && r.startedAt.After(rec.lastUsed) || rec.lastUsed.After(now) {
		rec.lastUsed = r.startedAt
	}
	// The request for new tokens gets its full time, however long the lease took.
	ctx, cancel := context.WithTimeout(r.values, redeemTimeout)
	defer cancel()
	return r.redeem(ctx, rec)
}

// pauseBeforeRefresh returns how long to wait before the refresh token of a record is
// sent. It is bounded, so that a clock that was set back does not delay a refresh further.
func pauseBeforeRefresh(rec *record, now time.Time) time.Duration {
	pause := min(minRefreshInterval-now.Sub(rec.token.obtained), minRefreshInterval)
	if rec.unclear {
		pause = max(pause, min(rec.token.refreshAt.Sub(now), unclearPause))
	}
	return pause
}

// acquire waits for a slot at the authorization server and for the lease. It occupies no
// slot while another process has the lease.
func (r *refresh) acquire(ctx context.Context, rec *record) error {
	wait := r.Vault.newLeaseWaiter(r.ref.ID, rec.version)
	defer wait.close()
	for {
		if err := r.acquireSlot(ctx, rec); err != nil {
			return err
		}
		lease, err := wait.try(ctx)
		if err == nil {
			r.lease = lease
			return nil
		}
		r.releaseSlot()
		if !errors.Is(err, session.ErrLeased) {
			return err
		}
		if err := wait.awaitChange(ctx); err != nil {
			return err
		}
	}
}

// acquireSlot waits for a slot at the authorization server. It fails during a back-off of
// the session, the server or the client.
func (r *refresh) acquireSlot(ctx context.Context, rec *record) error {
	if err := r.breaker.acquireSlot(ctx, r.Vault.closing); err != nil {
		return err
	}
	now := time.Now()
	waiting := !rec.token.usable(now)
	err := r.Vault.backoffs.check(r.ref.ID, now, waiting)
	failed := !r.Vault.backoffs.failingSince(r.ref.ID).IsZero()
	if err == nil {
		r.probe, err = r.breaker.admit(now, waiting, failed)
	}
	if err == nil {
		r.clientProbe, err = r.client.admit(now, waiting, failed)
	}
	if err != nil {
		r.releaseSlot()
		return err
	}
	return nil
}

// releaseSlot frees the slot, and ends a probe that has no result yet.
func (r *refresh) releaseSlot() {
	r.breaker.endProbe(r.probe)
	r.client.endProbe(r.clientProbe)
	r.probe, r.clientProbe = time.Time{}, time.Time{}
	r.breaker.releaseSlot()
}

// recordSuccess closes the circuits of the server and of the client: the server answers
// this client.
func (r *refresh) recordSuccess() {
	r.breaker.recordSuccess()
	r.client.recordSuccess()
}

// redeem sends the refresh token, and sends it once more if the connection broke. If the
// server has already rotated the token, the repeated request loses nothing. A request that
// timed out is not repeated, because the server may still be working on it.
func (r *refresh) redeem(ctx context.Context, rec *record) (hot, error) {
	answer, err := r.send(ctx, rec)
	if err != nil {
		return hot{}, errStale
	}
	// The former holder of a lease that was taken over may have sent the token.
	unanswered := r.Vault.backoffs.unanswered(r.ref.ID) || r.lease != nil && r.lease.tookOver
	if answer.Outcome == Unanswered {
		unanswered = true
		r.Observe(Event{Kind: EventRefreshFailed, ID: r.ref.ID, Subject: rec.subject, Outcome: Unanswered, Err: answer.Err})
		again, err := r.send(ctx, rec)
		switch {
		case errors.Is(err, errStale):
			return hot{}, errStale // another process has the lease now, and may have refreshed
		case err == nil:
			answer = again
		}
	}
	if answer.Outcome == Refreshed {
		r.recordSuccess()
		return r.accept(ctx, rec, answer.Tokens)
	}
	return r.handleFailure(ctx, rec, answer, unanswered)
}

// send sends the refresh token in one request. It sends nothing and returns an error if
// the lease cannot be confirmed immediately before. If the lease is lost while the server
// works and the new holder refreshes the session, send stops waiting and returns errStale.
func (r *refresh) send(ctx context.Context, rec *record) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var aborted atomic.Pointer[error]
	r.lease.whenLost(func() {
		if r.awaitOtherRefresh(ctx, rec.rotation) {
			err := errStale
			aborted.Store(&err)
			cancel()
		}
	})
	answer := r.Refresher.Refresh(ctx, rec.refreshToken, func() error {
		err := r.lease.confirm(ctx)
		if err != nil {
			aborted.Store(&err)
		}
		return err
	})
	if err := aborted.Load(); err != nil {
		return Answer{}, *err
	}
	return answer, nil
}

// awaitOtherRefresh waits until another process has refreshed the session. It reports
// false if ctx ends, or if the session ends: then send waits for the answer, so that the
// new tokens can be revoked.
func (r *refresh) awaitOtherRefresh(ctx context.Context, rotation uint64) bool {
	for {
		current, err := r.read(ctx, r.ref)
		switch {
		case err == nil && current.rotation > rotation:
			return true
		case errors.Is(err, ErrNoSession), !sleep(ctx, renewInterval):
			return false
		}
	}
}

// notRefreshable handles a session without a refresh token. Such a session ends with its
// access token.
func (r *refresh) notRefreshable(ctx context.Context, rec *record, now time.Time) (hot, error) {
	if rec.token.usable(now) {
		return hot{}, ErrNotRefreshable
	}
	return hot{}, r.endSessionAt(ctx, r.ref.ID, rec.version, session.Holder{}, ending{EndNoRefreshToken, rec.subject})
}

// sleep waits for a duration. It reports false if ctx ended first.
func sleep(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
