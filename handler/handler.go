package handler

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Handler serves one site.
type Handler struct {
	Config
	endpoints map[string]endpoint
	// warnNoRefreshToken: the cause is in the configuration, so once is enough.
	warnNoRefreshToken sync.Once
	logLimiter         logLimiter
}

// callbackPath is below the path prefix.
const callbackPath = "/callback"

// endpoint answers one of our own URLs.
type endpoint struct {
	methods string // separated by ", ", as in Allow
	serve   func(w http.ResponseWriter, r *http.Request) error
	// secret: the callback has the code in its URL, the answer to a logout the ID
	// token in its Location, and a server that is wrong may put its logout token
	// into a URL.
	hasSecrets bool
}

// New returns a Handler. Its errors name the option or the field in question.
func New(c Config) (*Handler, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	h := &Handler{Config: c}
	h.endpoints = map[string]endpoint{
		"/login":           {methods: "GET, HEAD", serve: h.serveLogin},
		callbackPath:       {methods: "GET", serve: h.serveCallback, hasSecrets: true},
		"/logout":          {methods: "GET, HEAD, POST", serve: h.serveLogout, hasSecrets: true},
		"/logout/callback": {methods: "GET, HEAD", serve: h.serveLoggedOut},
		backchannelPath:    {methods: "POST", serve: h.serveBackchannelLogout, hasSecrets: true},
		"/session":         {methods: "GET, HEAD", serve: h.serveSession},
		"/session/refresh": {methods: "POST", serve: h.serveRefresh},
	}
	return h, nil
}

// Next is what requests are relayed to: an http.Handler that also returns an
// error, as those of Caddy do. The error is handed up as it is.
type Next interface {
	ServeHTTP(w http.ResponseWriter, r *http.Request) error
}

// NextFunc is a function as Next.
type NextFunc func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP calls f.
func (f NextFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) error { return f(w, r) }

// ServeHTTP answers a request to one of the endpoints, and relays every other
// one that needs a session to next, with the token of its session. Without a
// session a navigation is sent to the login and anything else gets 401. It
// returns what next or Config.Fail return, and otherwise nil: the response has
// been written.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next Next) error {
	path, ok := strings.CutPrefix(h.OriginalURL(r).Path, h.PathPrefix)
	isEndpoint := ok && strings.HasPrefix(path, "/")
	if !isEndpoint && !h.protects(r) {
		return h.relayUnprotected(w, r, next)
	}
	owner := h.reclaim(w, r)
	if owner != nil && !isEndpoint && h.hasAmbiguousPath(r) {
		return h.relayNested(w, r, owner, next) // the user is the owner's
	}
	h.SetUser(r, nil)
	if isEndpoint {
		return h.serveEndpoint(w, r, path)
	}
	return h.relay(w, r, next)
}

// serveEndpoint matches exactly: another spelling of an endpoint is none, and
// nothing below the prefix ever reaches the app.
func (h *Handler) serveEndpoint(w http.ResponseWriter, r *http.Request, path string) error {
	e, ok := h.endpoints[path]
	if e.hasSecrets { // in this spelling or another
		h.KeepOutOfLog(r)
	}
	setSecurityHeaders(w)
	if !ok || h.OriginalURL(r).EscapedPath() != h.PathPrefix+path {
		return h.fail(w, r, notFound())
	}
	if !methodListed(e.methods, r.Method) {
		w.Header().Set("Allow", e.methods)
		return h.fail(w, r, &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "Method not allowed", Detail: "This address answers " + e.methods + "."})
	}
	// What begins or ends a login must not be replayed from TLS early data
	// (RFC 8470, section 5.2).
	if isEarlyData(r) {
		return h.fail(w, r, tooEarly())
	}
	return e.serve(w, r)
}

func methodListed(methods, method string) bool {
	for m := range strings.SplitSeq(methods, ", ") {
		if m == method {
			return true
		}
	}
	return false
}

// fail answers with an error: a page for somebody who looks at it, a problem
// document (RFC 9457) for everything else.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, e *Error) error {
	setSecurityHeaders(w)
	e.prefix = h.PathPrefix
	h.Meter.Refusal(e.Code)
	if e.login {
		h.Meter.Login(e.Code)
	}
	if e.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		h.logFailure(e)
	}
	if !isNavigation(r) && !isFormPost(r) {
		e.writeProblem(w, h.PathPrefix)
		return nil
	}
	if h.OriginalURL(r).Path == h.PathPrefix+callbackPath {
		// Whoever Fail hands an error to may log it with its URL, code and all. Nor
		// does the page reload the callback: that would send the code again.
		e.reloadAt = loginLink(h.PathPrefix, cmp.Or(e.Retry, "/"), "")
		e.Write(w, r)
		return nil
	}
	c := h.readCookies(r)
	removeOwnCookies(r, &c)
	e.setRetryAfter(w)
	return h.Fail(w, r, e)
}

func (h *Handler) logFailure(e *Error) {
	if h.logLimiter.allow(e.Code) {
		h.Logger.Error("request failed", zap.String("code", e.Code), zap.Int("status", e.Status), zap.Error(e.Err))
	}
}

// unavailable answers for a session that cannot be used now: it is kept, and
// the cookie with it.
func unavailable(err error) *Error {
	e := &Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: time.Second,
		Title: "One moment", Detail: "Your session is kept, but it cannot be used right now. This page tries again by itself.",
		Err: err,
	}
	var u *keeper.UnavailableError
	if errors.As(err, &u) {
		e.RetryAfter = max(u.RetryAfter, time.Second)
		if u.Misconfigured {
			e.Status, e.Code, e.Title = http.StatusBadGateway, "misconfigured", "Sign-in is not set up correctly"
			e.Detail = "Your session is kept, but the sign-in service refuses this site. Its operator has been told."
		}
	}
	return e
}

// originalRequestURI is what the browser asked for.
func (h *Handler) originalRequestURI(r *http.Request) string {
	return returnPath(h.OriginalURL(r))
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n'))
	}
	return nil
}
