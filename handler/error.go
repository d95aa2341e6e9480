package handler

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

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
	// RetryAfter, if not zero, makes the page reload after that time.
	RetryAfter time.Duration
	// Retry, if not empty, is a path. The page links to a new login that leads
	// there.
	Retry string
	// SwitchAccount adds a link to sign in with another account.
	SwitchAccount bool
	// SignOut adds a button to sign out.
	SignOut bool
	// Err is the cause. It goes to the log only.
	Err error

	prefix string
	// otherAccount is the prompt of the link that SwitchAccount adds.
	otherAccount string
	login        bool // the error ends a login, for Meter.Login
	// reloadAt is the URL to which the page goes instead of reloading. Empty: it
	// reloads.
	reloadAt string
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

// setSecurityHeaders sets the headers of every answer that the Handler itself
// gives. Such an answer concerns one user: it must not be stored, framed or leaked
// by a referrer.
func setSecurityHeaders(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Content-Security-Policy", contentSecurityPolicy)
	header.Set("X-Frame-Options", "DENY")
}

// retryAfterSeconds rounds up, so that a client does not come back too early.
func (e *Error) retryAfterSeconds() int { return int(math.Ceil(e.RetryAfter.Seconds())) }

func (e *Error) setRetryAfter(w http.ResponseWriter) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfterSeconds()))
	}
}

// problem is a problem document (RFC 9457).
type problem struct {
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Code     string `json:"code"`
	Detail   string `json:"detail,omitempty"`
	LoginURL string `json:"login_url,omitempty"`
}

func (e *Error) writeProblem(w http.ResponseWriter, prefix string) {
	p := problem{Title: e.Title, Status: e.Status, Code: e.Code, Detail: e.Detail}
	if e.Status == http.StatusUnauthorized {
		p.LoginURL = prefix + "/login"
	}
	body, _ := json.Marshal(p) // marshalling strings and a number cannot fail
	e.setRetryAfter(w)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(body, '\n'))
}

// Write answers with an HTML page. ServeHTTP has set the security headers before it
// calls Config.Fail.
func (e *Error) Write(w http.ResponseWriter, r *http.Request) {
	e.setRetryAfter(w)
	p := page{Title: e.Title, Detail: e.Detail, Code: e.Code}
	if e.RetryAfter > 0 {
		p.RefreshAfter, p.RefreshTo = e.retryAfterSeconds(), e.reloadAt
	}
	if e.Retry != "" {
		p.Link, p.LinkText = loginLink(e.prefix, e.Retry, ""), "Sign in again"
	}
	if e.SwitchAccount {
		p.Link, p.LinkText = loginLink(e.prefix, e.Retry, e.otherAccount), "Use another account"
	}
	if e.SwitchAccount || e.SignOut {
		p.Post, p.PostText = e.prefix+"/logout", "Sign out"
	}
	_ = writePage(w, r, e.Status, p)
}

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

// storeUnavailable answers a login while the store takes no sessions.
func storeUnavailable(err error, returnTo string) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: 5 * time.Second,
		Title: "Sign-in is not available", Detail: "Your sign-in cannot be saved at the moment. Please try again shortly.",
		Retry: returnTo, Err: err, login: true,
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

func isUnavailable(err error) bool {
	var u *keeper.UnavailableError
	return errors.As(err, &u)
}

// logLimiter keeps one cause from filling the log. The causes are a short fixed
// list, so the map stays small.
type logLimiter struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// allow reports whether a cause was not logged within the last minute.
func (p *logLimiter) allow(cause string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if last, ok := p.last[cause]; ok && now.Sub(last) < logInterval {
		return false
	}
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	p.last[cause] = now
	return true
}

// printable keeps text from outside from forging log lines. It cuts the text to 200
// bytes and replaces everything but printable ASCII.
func printable(s string) string {
	const limit = 200
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s[:min(len(s), limit)])
	return s
}
