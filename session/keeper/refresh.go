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
	// leaseWait bounds how long a refresh waits until it may be sent: for another
	// process that has the lease, and for its turn at the authorization server.
	leaseWait = time.Minute
	// sendTimeout bounds one request to the authorization server: ten seconds to
	// connect, and then a minute for the answer.
	sendTimeout = 75 * time.Second
	// redeemTimeout bounds the part of a refresh that has the lease: two requests
	// that are each repeated once, judging the ID token, and the store.
	redeemTimeout = 4*sendTimeout + time.Minute
	// maxRefreshTime is how long a use may be on its way with a refresh.
	maxRefreshTime = leaseWait + redeemTimeout
)

// refresh is one refresh, from reading the record to committing the new one. It
// runs once per session at a time and on no request's context: a client that
// hangs up must not lose a token that the server has already rotated.
type refresh struct {
	*Keeper
	flight      *flight
	ref         seal.Ref
	demand      demand
	requestedAt time.Time
	lease       *heldLease // of the try under way
	// probe and clientProbe are when this refresh became the probe of a server that
	// is down, or of its client, which identifies the probe. Zero: it is none.
	probe, clientProbe time.Time
	// keepLeaseFor is how long the lease stays held after the refresh.
	keepLeaseFor time.Duration
}

func (r *refresh) retryOnConflict() (hot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), leaseWait)
	defer cancel()
	for tries := 1; ; tries++ {
		read := r.read
		if tries == 1 {
			read = r.readCopy // acquire says if it is old
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

// immediateRetries is how often a refresh begins anew without a pause. More is no
// race any more.
const immediateRetries = 3

// try is one try of a refresh. ctx bounds it until the refresh has the lease. The
// error is errAgain if another process was faster with anything.
func (r *refresh) try(ctx context.Context, read func(context.Context, seal.Ref) (*record, error)) (hot, error) {
	rec, err := read(ctx, r.ref)
	if err != nil {
		return hot{}, err
	}
	now := time.Now()
	if reason := r.endReason(r.ref.ID, &rec.hot, now); reason != "" {
		return hot{}, r.endSessionAt(ctx, r.ref.ID, rec.version, session.Holder{}, reason)
	}
	// Whoever asked may have read an older record: the flight before this one,
	// or another instance, has refreshed since.
	if !rec.token.due(now) && r.demand.met(&rec.token, now) {
		return rec.hot, nil
	}
	if rec.refreshToken == "" {
		return r.notRefreshable(ctx, rec, now)
	}
	if rec.token.refreshAt.IsZero() {
		rec.unclear = true // as an earlier release noted it
	}
	if rec.unclear && rec.token.usable(now) && !rec.token.due(now) {
		return hot{}, ErrNotRefreshable
	}
	if r.Vault.shared != nil && r.Vault.hasUnwritten(r.ref.ID) {
		return hot{}, unavailable(errors.New("the tokens of the last refresh are not written yet"))
	}
	// A clock that was set back must not hold a refresh up for longer.
	pause := min(minRefreshInterval-now.Sub(rec.token.obtained), minRefreshInterval)
	if rec.unclear {
		pause = max(pause, min(rec.token.refreshAt.Sub(now), unclearPause))
	}
	if !sleep(ctx, pause) {
		return hot{}, unavailable(ctx.Err())
	}
	if err := r.acquire(ctx, rec); err != nil {
		return hot{}, err
	}
	defer r.releaseSlot()
	defer func() { r.lease.refreshDoneAfter(r.keepLeaseFor) }()
	if r.lease != nil && r.lease.tookOver {
		r.Observe(Event{Kind: EventLeaseTaken, ID: r.ref.ID})
	}
	// Only requests cause refreshes. This may be a later try; and a clock that
	// ran ahead must not keep the session from becoming idle.
	if r.requestedAt.After(rec.lastUsed) || rec.lastUsed.After(now) {
		rec.lastUsed = r.requestedAt
	}
	// However long the lease took, the token that is sent from here on has the
	// whole of its time.
	ctx, cancel := context.WithTimeout(context.Background(), redeemTimeout)
	defer cancel()
	return r.redeem(ctx, rec)
}

// acquire waits until this refresh may be sent: for a slot at the authorization
// server and for the lease. It keeps no slot while another process has the lease.
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

// enter takes a slot, if the session and the authorization server are not in
// their back-off.
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

// leave gives the slot back, and ends a probe that brought no result.
func (r *refresh) releaseSlot() {
	r.breaker.endProbe(r.probe)
	r.client.endProbe(r.clientProbe)
	r.probe, r.clientProbe = time.Time{}, time.Time{}
	r.breaker.releaseSlot()
}

// succeed notes an answer that shows the server at work for this client.
func (r *refresh) recordSuccess() {
	r.breaker.recordSuccess()
	r.client.recordSuccess()
}

// redeem sends the refresh token, and once more if the connection broke: if the
// server took it, nothing is lost by asking. A request without an answer in time
// is not repeated: the server may still be working on it.
func (r *refresh) redeem(ctx context.Context, rec *record) (hot, error) {
	answer, err := r.send(ctx, rec)
	if err != nil {
		return hot{}, errStale
	}
	// Whose lease was taken over may have sent it and died.
	unanswered := r.Vault.backoffs.unanswered(r.ref.ID) || r.lease != nil && r.lease.tookOver
	if answer.Outcome == Unanswered {
		unanswered = true
		r.Observe(Event{Kind: EventRefreshFailed, ID: r.ref.ID, Outcome: Unanswered, Err: answer.Err})
		again, err := r.send(ctx, rec)
		switch {
		case errors.Is(err, errStale):
			return hot{}, errStale // somebody else has taken over, and may be done
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

// send sends the refresh token, unless the lease cannot be confirmed right
// before: then it returns why. If the lease is lost while the server takes its
// time, and the new holder has refreshed, send waits no longer and returns errAgain.
func (r *refresh) send(ctx context.Context, rec *record) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	var refusal atomic.Pointer[error]
	r.lease.whenLost(func() {
		if r.awaitOtherRefresh(ctx, rec.rotation) {
			err := errStale
			refusal.Store(&err)
			cancel()
		}
	})
	answer := r.Refresher.Refresh(ctx, rec.refreshToken, func() error {
		err := r.lease.confirm(ctx)
		if err != nil {
			refusal.Store(&err)
		}
		return err
	})
	if err := refusal.Load(); err != nil {
		return Answer{}, *err
	}
	return answer, nil
}

// awaitOtherRefresh waits until another process has refreshed the session. It reports
// false if ctx ended first, or the session, whose new tokens are then to be revoked.
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

// notRefreshable is for a session without a refresh token: it lasts as long as
// its access token.
func (r *refresh) notRefreshable(ctx context.Context, rec *record, now time.Time) (hot, error) {
	if rec.token.usable(now) {
		return hot{}, ErrNotRefreshable
	}
	return hot{}, r.endSessionAt(ctx, r.ref.ID, rec.version, session.Holder{}, EndNoRefreshToken)
}

// minRefreshInterval spaces the refreshes of one session, whatever lifetime a server
// or a clock gone wrong gives its tokens.
const minRefreshInterval = time.Second

// sleep reports false if ctx ended first.
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
