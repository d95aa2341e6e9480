package keeper

import (
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

var (
	// ErrNoSession means that the secret belongs to no session of this site: it
	// never did, or the session has ended.
	ErrNoSession = errors.New("no session")
	// ErrIdentityChanged is returned by Refresher.Identify for an ID token that
	// provably belongs to another login. It ends the session.
	ErrIdentityChanged = errors.New("the refreshed ID token is of another login")
	// ErrNotRefreshable means that the session exists and that a newer access
	// token cannot be obtained now: there is no refresh token, or the server has
	// refused it once without saying that it is invalid.
	ErrNotRefreshable = errors.New("the session cannot be refreshed now")
	// ErrTokenExpired is the cause of the end of a stream that was limited to the
	// lifetime of its access token (see Attachment.BecomeStream).
	ErrTokenExpired = errors.New("the access token of this stream has expired")
	// ErrNotEnded means that a session has ended in this process, but other
	// processes on the store do not know that yet.
	ErrNotEnded = errors.New("the store did not take the end of the session")
	// ErrLoggedOut means that the authorization server ended a login before it
	// became a session.
	ErrLoggedOut = errors.New("the authorization server has ended this login")
	// ErrLoginOver means that a login attempt was redeemed before and has no
	// session to share: it failed, or its result is unknown. This process does not
	// redeem it again.
	ErrLoginOver = errors.New("this login attempt has been redeemed before")
	// ErrManyLogins means that too many logins are in progress. Nothing was
	// redeemed.
	ErrManyLogins = errors.New("too many logins are in progress")
	// ErrReplayed means that this logout has been carried out before.
	ErrReplayed = errors.New("this logout has been carried out before")
	// ErrClosed means that the vault has been closed.
	ErrClosed = errors.New("closed")
)

// EndReason is the reason for which a session ended, as in logs and metrics.
type EndReason string

// Reasons for the end of a session.
const (
	EndLogout          EndReason = "logout"              // the user logged out
	EndIdle            EndReason = "idle_timeout"        // not used for IdleTimeout
	EndLifetime        EndReason = "max_lifetime"        // MaxLifetime after the login
	EndSessionExpiry   EndReason = "session_expiry"      // the authorization server limits the session
	EndRefreshExpired  EndReason = "refresh_expired"     // the access and refresh token expired, as the server said
	EndRejected        EndReason = "refresh_rejected"    // the refresh token is invalid (Rejected)
	EndRefusedUnclear  EndReason = "refused_unclear"     // the server refused it twice (Unclear)
	EndNoRefreshToken  EndReason = "no_refresh_token"    // the access token expired
	EndIdentityChanged EndReason = "identity_changed"    // ErrIdentityChanged
	EndReplaced        EndReason = "replaced_by_login"   // the browser logged in again
	EndBackchannel     EndReason = "backchannel_logout"  // the authorization server logged the user out
	EndFrontchannel    EndReason = "frontchannel_logout" // its page in the browser did
	EndRevoked         EndReason = "revoked"             // an operator ended it
	EndSessionLimit    EndReason = "session_limit"       // a later login of the user exceeded SessionLimit
)

// EndReasons returns all reasons for the end of a session, for metrics.
func EndReasons() []EndReason {
	return []EndReason{
		EndLogout, EndIdle, EndLifetime, EndSessionExpiry, EndRefreshExpired, EndRejected, EndRefusedUnclear, EndNoRefreshToken,
		EndIdentityChanged, EndReplaced, EndBackchannel, EndFrontchannel, EndRevoked, EndSessionLimit,
	}
}

// EndedError is returned to the one request that ends a session or finds it expired.
// Later requests get ErrNoSession. errors.Is(err, ErrNoSession) is true for both.
type EndedError struct{ Reason EndReason }

func (e *EndedError) Error() string { return "session ended: " + string(e.Reason) }

// Is reports true for ErrNoSession.
func (e *EndedError) Is(target error) bool { return target == ErrNoSession }

// UnavailableError means that the keeper has no valid access token now, or cannot use
// its store. The session, if there is one, goes on.
type UnavailableError struct {
	// RetryAfter is how long a client should wait before it repeats the request.
	RetryAfter time.Duration
	// Misconfigured means that the operator must act: repeating does not help.
	Misconfigured bool
	// Err is the cause.
	Err error
}

// unavailable returns the error for a request that may be repeated after a second.
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
