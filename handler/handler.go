package handler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// Handler serves one site. New makes it.
type Handler struct {
	Config
	endpoints map[string]endpoint
	// warnNoRefreshToken limits the warning to one per Handler: its cause is in the
	// configuration.
	warnNoRefreshToken sync.Once
	logLimiter         logLimiter
	frames             framePolicy
	// callbackArrived reports that a callback of this site has reached the Handler.
	callbackArrived atomic.Bool
}

// Paths relative to the path prefix.
const (
	loginPath    = "/login"
	callbackPath = "/callback"
)

// endpoint is one of the Handler's own URLs.
type endpoint struct {
	methods string // separated by ", ", as in the header Allow
	serve   func(w http.ResponseWriter, r *http.Request) error
	// hasSecrets keeps requests out of the access log. The callback has the code in
	// its URL. A logout has the ID token in the Location of its answer. The URL of
	// a back-channel logout may contain the logout token, if the server sends it
	// wrongly.
	hasSecrets bool
}

// New returns a Handler. It refuses a configuration that cannot work, and the error
// names the option or the field. It uses no network.
func New(c Config) (*Handler, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.setDefaults()
	h := &Handler{Config: c, frames: newFramePolicy(c)}
	callbackMethods := "GET"
	if c.Client.FormPost() {
		callbackMethods = "GET, POST" // the server sends errors in the URL all the same
	}
	h.endpoints = map[string]endpoint{
		loginPath:          {methods: "GET, HEAD, POST", serve: h.serveLogin},
		callbackPath:       {methods: callbackMethods, serve: h.serveCallback, hasSecrets: true},
		"/logout":          {methods: "GET, HEAD, POST", serve: h.serveLogout, hasSecrets: true},
		"/logout/callback": {methods: "GET, HEAD", serve: h.serveLoggedOut},
		backchannelPath:    {methods: "POST", serve: h.serveBackchannelLogout, hasSecrets: true},
		"/session":         {methods: "GET, HEAD", serve: h.serveSession},
		"/session/refresh": {methods: "POST", serve: h.serveRefresh},
		clientPath:         {methods: "GET, HEAD", serve: h.serveClient},
		keysPath:           {methods: "GET, HEAD", serve: h.serveKeys},
	}
	if c.FrontchannelLogout {
		// The URL has the sid, with which a page of another site could end the session.
		h.endpoints[frontchannelPath] = endpoint{methods: "GET", serve: h.serveFrontchannelLogout, hasSecrets: true}
	}
	return h, nil
}

// Next is the handler to which requests are relayed. It is an http.Handler that
// also returns an error, like the handlers of Caddy.
type Next interface {
	ServeHTTP(w http.ResponseWriter, r *http.Request) error
}

// NextFunc is a function that implements Next.
type NextFunc func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP calls f.
func (f NextFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) error { return f(w, r) }

// ServeHTTP answers requests to the endpoints. It relays any other request that
// needs a session to next, with the session's access token. Without a session, a
// navigation is redirected to the login, and any other request gets status 401.
//
// It returns the error of next or of Config.Fail unchanged. In every other case the
// response has been written and the error is nil.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next Next) error {
	path, ok := strings.CutPrefix(h.OriginalURL(r).Path, h.PathPrefix)
	isEndpoint := ok && strings.HasPrefix(path, "/")
	if !isEndpoint && !h.protects(r) {
		return h.relayUnprotected(w, r, next)
	}
	if outer := h.reclaim(w, r); outer != nil {
		switch {
		case !h.sameSite(outer.handler):
			if h.hasAmbiguousPath(r) || !h.mayServeBehind(r, isEndpoint) {
				return h.fail(w, r, h.nestedLogins(r, outer.handler))
			}
		case isEndpoint, outer.session == nil:
			h.takeOver(r, outer)
		default:
			return h.relayNested(w, r, outer, next) // the outer Handler has set the user
		}
	}
	h.SetUser(r, nil)
	if isEndpoint {
		return h.serveEndpoint(w, r, path)
	}
	return h.relay(w, r, next)
}

// Middleware returns an http.Handler that relays to next, for servers whose handlers
// return no error. An error of Config.Fail is logged and answered with status 500.
func (h *Handler) Middleware(next http.Handler) http.Handler {
	relayed := NextFunc(func(w http.ResponseWriter, r *http.Request) error {
		next.ServeHTTP(w, r)
		return nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, r, relayed); err != nil {
			h.Logger.Error("error page not written", zap.Error(err))
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		}
	})
}

// serveEndpoint answers a request below the path prefix. The path must match byte
// for byte, and the app never gets a request below the prefix. Otherwise another
// spelling of an endpoint would reach an app that reads it as something else.
func (h *Handler) serveEndpoint(w http.ResponseWriter, r *http.Request, path string) error {
	e, ok := h.endpoints[path]
	if e.hasSecrets { // in any spelling, because the URL is logged as it is
		h.KeepOutOfLog(r)
	}
	h.beginAnswer(w, r)
	if !ok || h.OriginalURL(r).EscapedPath() != h.PathPrefix+path {
		return h.fail(w, r, h.unknownEndpoint(r))
	}
	if !methodListed(e.methods, r.Method) {
		return h.wrongMethod(w, r, path, e.methods)
	}
	// A request that begins or ends a login must not be replayed from TLS early
	// data (RFC 8470, section 5.2).
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

// originalRequestURI returns path and query as the browser asked for them.
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
