package keeper

import (
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

var (
	// ErrNoSession: nothing opens with this secret. It was never a session
	// here, or it has ended.
	ErrNoSession = errors.New("no session")
	// ErrIdentityChanged is returned by a Refresher's Identify for an ID token
	// that is proven to be of another login. It ends the session.
	ErrIdentityChanged = errors.New("the refreshed ID token is of another login")
	// ErrNotRefreshable: the session is alive and a newer access token cannot be had
	// now. There is no refresh token, or the server has refused it once without
	// saying that it is dead.
	ErrNotRefreshable = errors.New("the session cannot be refreshed now")
	// ErrNotEnded: a session that was to end is over in this process, and other
	// processes that use the store do not know it yet.
	ErrNotEnded = errors.New("the store did not take the end of the session")
	// ErrLoggedOut: the authorization server has ended a login while it was being
	// completed, so that no session was made of it.
	ErrLoggedOut = errors.New("the authorization server has ended this login meanwhile")
	// ErrLoginOver: a login attempt was redeemed before, and left no session that
	// could be shared: it failed, or nobody knows what became of it. This process
	// does not redeem it again.
	ErrLoginOver = errors.New("this login attempt has been redeemed before")
	// ErrManyLogins: too many logins are being completed at a time. Nothing was
	// redeemed.
	ErrManyLogins = errors.New("too many logins are being completed at a time")
	// ErrReplayed: this logout has been carried out before.
	ErrReplayed = errors.New("this logout has been carried out before")
	// ErrClosed: the vault has been closed.
	ErrClosed = errors.New("closed")
)

// EndReason says why a session ended.
type EndReason string

// The reasons for which a session ends.
const (
	EndLogout          EndReason = "logout"
	EndIdle            EndReason = "idle_timeout"
	EndLifetime        EndReason = "max_lifetime"
	EndRejected        EndReason = "refresh_rejected"
	EndRefusedUnclear  EndReason = "refused_unclear"
	EndNoRefreshToken  EndReason = "no_refresh_token"
	EndIdentityChanged EndReason = "identity_changed"
	EndReplaced        EndReason = "replaced_by_login"
	EndBackchannel     EndReason = "backchannel_logout"
)

// EndedError reports a session that this very request found at its end. Later
// requests get ErrNoSession, and errors.Is treats the two alike.
type EndedError struct{ Reason EndReason }

func (e *EndedError) Error() string { return "session ended: " + string(e.Reason) }

// Is makes an ended session one that is not there.
func (e *EndedError) Is(target error) bool { return target == ErrNoSession }

// UnavailableError reports that there is nothing valid to send upstream now,
// and that the session is kept.
type UnavailableError struct {
	// RetryAfter is when asking again may help.
	RetryAfter time.Duration
	// Misconfigured: time will not heal it, the operator must act.
	Misconfigured bool
	Err           error
}

// unavailable is the error for a request that may be repeated at once.
func unavailable(err error) *UnavailableError {
	return &UnavailableError{RetryAfter: time.Second, Err: err}
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("session unavailable: %v", e.Err) }

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// reportUnreadable notifies the observer if reading an item failed because of its
// content.
func (k *Keeper) reportUnreadable(id session.ID, err error) {
	if errors.Is(err, session.ErrDamaged) {
		err = &seal.UnreadableError{Part: seal.PartItem}
	}
	if errors.Is(err, seal.ErrUnreadable) {
		k.Observe(Event{Kind: EventUnreadable, ID: id, Err: err})
	}
}
