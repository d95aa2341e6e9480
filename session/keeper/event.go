package keeper

import (
	"errors"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// EventKind names what happened to a session outside of its requests.
type EventKind int

// Kinds of events.
const (
	// EventRefreshed: a refresh was committed.
	EventRefreshed EventKind = iota
	// EventRefreshFailed: a refresh got no new token; Outcome and Err say more.
	EventRefreshFailed
	// EventEnded: a session ended; Reason says why.
	EventEnded
	// EventUnwritten: new tokens could not be written and are served from
	// memory; Err says why.
	EventUnwritten
	// EventWritten: what was served from memory has been written.
	EventWritten
	// EventIDTokenKept: the refreshed ID token could not be verified. The session
	// goes on with the new access token and the ID token and claims before; Err
	// says why.
	EventIDTokenKept
	// EventLeaseTaken: the right to refresh was taken over from an instance that
	// had fallen silent while it had it.
	EventLeaseTaken
	// EventDiscarded: new tokens came for a session that had ended meanwhile.
	EventDiscarded
	// EventUnreadable: what is in the store under a session's ID does not open, so
	// that there is no session; Err is an *UnreadableError. It is told of every
	// request that finds this, and never of a cookie that leads to nothing.
	EventUnreadable
)

// Event tells an observer what happened. It holds no secret.
type Event struct {
	Kind    EventKind
	ID      session.ID
	Outcome Outcome
	// ReuseSuspected, with Rejected: the refresh token was of the kind that is
	// good for one use, was not sent before, and had not expired. Somebody else
	// may have used it, or the server has revoked the login.
	ReuseSuspected bool
	Reason         EndReason
	Err            error
}

// Part returns what failed its check, with EventUnreadable, or "".
func (e Event) Part() seal.Part {
	var unreadable *seal.UnreadableError
	if errors.As(e.Err, &unreadable) {
		return unreadable.Part
	}
	return ""
}
