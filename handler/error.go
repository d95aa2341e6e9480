package handler

import (
	"errors"
	"net/http"
	"time"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Error is an answer that reports a problem to the client. Every field except Err
// may be shown to the client.
type Error struct {
	Status int
	// Code identifies the problem for programs, such as "login_expired".
	Code  string
	Title string
	// Detail is a sentence for users.
	Detail string
	// RetryAfter, if not zero, is when a new try can succeed. The page reloads after
	// that time, unless NeedsOperator is set.
	RetryAfter time.Duration
	// NeedsOperator means that a new try does not help: the operator of the site has
	// to correct something first.
	NeedsOperator bool
	// Retry, if not empty, is a path. The page links to a new login that leads
	// there.
	Retry string
	// SwitchAccount adds a link to sign in with another account.
	SwitchAccount bool
	// SignOut adds a button to sign out.
	SignOut bool
	// Err is the cause. It goes to the log only.
	Err error
	// Reference identifies this answer in the log, for a support request. The Handler
	// sets it.
	Reference string

	// audit is the event that the answer ends in, or nil.
	audit  *AuditEvent
	prefix string
	// otherAccount is the prompt of the link that SwitchAccount adds.
	otherAccount string
	login        bool // the error ends a login, for Meter.Login
	loop         bool // the error ends a loop of logins
	// again is the URL to which the page goes instead of reloading. Empty: it
	// reloads.
	again string
	// home is where the page links to if nothing else is offered. Empty: "/".
	home string
}

// Error returns the code and the cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Code + ": " + e.Err.Error()
	}
	return e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// badRequest answers a request to an endpoint with missing or invalid parameters.
func badRequest(err error) *Error {
	return &Error{Status: http.StatusBadRequest, Code: "bad_request", Title: "This request cannot be answered", Detail: "The address is not complete, or not valid.", Err: err}
}

// ambiguousPath answers a request that two Handlers would have to accept, because
// servers read its path differently.
func ambiguousPath() *Error {
	return &Error{Status: http.StatusForbidden, Code: "ambiguous_path", Title: "This address cannot be used", Detail: "Servers can read this address in different ways, so it is not opened."}
}

func notFound() *Error {
	return &Error{Status: http.StatusNotFound, Code: "not_found", Title: "Not found", Detail: "There is no such page."}
}

// tooEarly answers a request in TLS early data that could be a replay (RFC 8470,
// section 5.2). Browsers repeat it after the handshake.
func tooEarly() *Error {
	return &Error{Status: http.StatusTooEarly, Code: "too_early", Title: "Please try again", Detail: "The request arrived before the connection was ready."}
}

// internalError answers an unexpected failure.
func internalError(err error) *Error {
	return &Error{Status: http.StatusInternalServerError, Code: "internal", Title: "Something went wrong", Detail: "Please try again.", Err: err}
}

// crossOriginError answers a request that a page of another site has sent with the
// user's cookie (CSRF).
func crossOriginError() *Error {
	return &Error{Status: http.StatusForbidden, Code: "cross_origin", Title: "Not allowed from another site", Detail: "This request was sent by a page of another site."}
}

// loginUnavailable answers a login while the authorization server is down or slow.
func loginUnavailable(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "login_unavailable", RetryAfter: 5 * time.Second,
		Title: "Sign-in is not available", Detail: "The sign-in service does not answer at the moment. Please try again shortly.",
		Retry: returnTo, Err: err, login: true,
	}
}

// loginMisconfigured answers a login that stays impossible until an operator corrects
// the configuration here or at the authorization server.
func loginMisconfigured(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusBadGateway, Code: "misconfigured", NeedsOperator: true,
		Title: "Sign-in is not set up correctly", Detail: "The sign-in service and this site do not fit together. The operator of this site has to correct that.",
		Retry: returnTo, Err: err, login: true,
	}
}

// storeUnavailable answers a login while the store takes no sessions.
func storeUnavailable(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: 5 * time.Second,
		Title: "Sign-in is not available", Detail: "Your sign-in cannot be saved at the moment. Please try again shortly.",
		Retry: returnTo, Err: err, login: true,
	}
}

// loginInOtherTab answers a callback whose attempt has made room for those of other tabs.
// As soon as one of them is complete, its session serves this tab, too. The page goes to
// the wanted page and not to a new login, which would take the room of others again.
func loginInOtherTab(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "login_in_other_tab", RetryAfter: 2 * time.Second,
		Title: "One moment", Detail: "Other tabs are signing in to this site. This page continues by itself.",
		Err: err, login: true, again: returnTo, home: returnTo,
	}
}

// loginBusy answers a login for which no token request was sent. A new try loses
// nothing.
func loginBusy(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "login_busy", RetryAfter: 5 * time.Second,
		Title: "One moment", Detail: "Very many people are signing in right now. This page tries again by itself.",
		Retry: returnTo, Err: err, login: true,
	}
}

// loggedOutDuringLogin answers a login that the authorization server ended while it
// was being completed. This is not a fault, so the page does not call it one.
func loggedOutDuringLogin(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusForbidden, Code: "logged_out", Title: "You have been signed out",
		Detail: "The sign-in service ended this sign-in while it was being completed. You can sign in again.",
		Retry:  returnTo, Err: err, login: true,
	}
}

// logoutUnavailable answers a logout that other instances do not know of yet. The
// page must not confirm the logout, and offers to repeat it.
func logoutUnavailable(err error) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "logout_unavailable", RetryAfter: 5 * time.Second,
		Title: "You are not signed out yet", Detail: "Your session could not be ended everywhere. Please try again shortly.",
		SignOut: true, Err: err,
	}
}

// unavailable answers a request whose session cannot be used at the moment. The
// session and the cookie stay.
func unavailable(err error) *Error {
	e := &Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: time.Second,
		Title: "One moment", Detail: "Your session is kept, but it cannot be used right now. This page tries again by itself.",
		Err: err,
	}
	var u *keeper.UnavailableError
	if errors.As(err, &u) {
		e.RetryAfter = max(u.RetryAfter, time.Second)
		if u.Misconfigured || oauth.NeedsOperator(err) {
			e.NeedsOperator = true
			e.Status, e.Code, e.Title = http.StatusBadGateway, "misconfigured", "Sign-in is not set up correctly"
			e.Detail = "Your session is kept, but the sign-in service refuses this site. Its operator has to correct that."
		}
	}
	return e
}

func isUnavailable(err error) bool {
	var u *keeper.UnavailableError
	return errors.As(err, &u)
}
