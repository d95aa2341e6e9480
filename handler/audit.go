package handler

import (
	"crypto/rand"
	"net/http"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// AuditEvent is something that an operator may have to account for later: who came in, who
// did not and why, and what ended a session. It contains no secret.
type AuditEvent struct {
	// Kind is one of the Audit constants.
	Kind string
	// Reference is the reference that the user's page shows, or a new one.
	Reference string
	// Session is the session; zero: there is none.
	Session session.ID
	// User is the claim `sub`, or empty if it is not known.
	User string
	// Reason says why: the code of the page for AuditLoginRefused, the reason of an end for
	// AuditSessionEnded, the part of the record for AuditStoreTampered.
	Reason string
	// Claim is the required claim of AuditAccessDenied, and Found is "absent" or "other
	// value".
	Claim, Found string
}

// Kinds of audit events.
const (
	AuditLogin              = "login"               // a session has begun
	AuditLoginRefused       = "login_refused"       // a login of this browser has failed
	AuditAccessDenied       = "access_denied"       // a user lacks a required claim
	AuditLogout             = "logout"              // the user has signed out
	AuditBackchannelLogout  = "backchannel_logout"  // the authorization server has logged the user out
	AuditFrontchannelLogout = "frontchannel_logout" // a page of the authorization server has
	AuditSessionEnded       = "session_ended"       // a session has ended, for any reason
	AuditStoreTampered      = "store_tampered"      // a record in the store does not open
)

// referenceLength is the number of characters of a reference. It tells the problems of a
// few days apart, and is short enough to be read out.
const referenceLength = 8

// NewReference returns a reference for a page, a log line or an audit event: letters and
// digits that are not mistaken for each other.
func NewReference() string { return rand.Text()[:referenceLength] }

// audit reports an event of a request.
func (h *Handler) audit(r *http.Request, e AuditEvent) {
	if e.Reference == "" {
		e.Reference = NewReference()
	}
	e.Reason = printable(e.Reason)
	h.Audit(r, e)
}
