package keeper

import (
	"errors"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// EventKind is the kind of an Event.
type EventKind int

// Kinds of events.
const (
	// EventRefreshed means that the new tokens of a refresh were committed.
	EventRefreshed EventKind = iota
	// EventRefreshFailed means that a refresh request returned no usable tokens.
	// Outcome and Err give the reason.
	EventRefreshFailed
	// EventEnded means that a session ended. Reason gives the reason.
	EventEnded
	// EventUnwritten means that the store did not take new tokens, which are now
	// served from memory. Err is the store's error.
	EventUnwritten
	// EventWritten means that the store has taken tokens after an EventUnwritten.
	EventWritten
	// EventIDTokenKept means that the refreshed ID token could not be verified. The
	// session goes on with the new access token and with its former ID token and
	// claims. Err gives the reason.
	EventIDTokenKept
	// EventLeaseTaken means that this instance took over the lease of a refresh
	// from an instance that had stopped renewing it.
	EventLeaseTaken
	// EventDiscarded means that new tokens arrived for a session that had ended
	// during the refresh.
	EventDiscarded
	// EventUnreadable means that the item under a session's ID cannot be read, so
	// that no session exists; Err is a *seal.UnreadableError. It is reported for
	// every request that finds such an item, and never for a cookie without one.
	EventUnreadable
	// EventWaited means that a request has waited for a refresh, because its token did
	// not meet its demand. Took is how long, whatever came of it.
	EventWaited
)

// Event is one event that happened outside of requests. It contains no secret.
type Event struct {
	Kind EventKind
	ID   session.ID
	// Subject is the claim `sub` of the session's user. It is empty if there is none, and
	// where the record was not opened: of a session that another site has sealed, or that
	// a release without labels has written.
	Subject string
	Outcome Outcome
	// ReuseSuspected is set with Rejected if the refresh token was a one-time
	// token, was not sent before, and had not expired. Another party may have used
	// it, or the server has revoked the login.
	ReuseSuspected bool
	Reason         EndReason
	Took           time.Duration
	Err            error
}

// Part returns the part of an item that failed its check, for an EventUnreadable, else
// "".
func (e Event) Part() seal.Part {
	var unreadable *seal.UnreadableError
	if errors.As(e.Err, &unreadable) {
		return unreadable.Part
	}
	return ""
}
