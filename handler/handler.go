package handler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session"
)

// Config is what a Handler works with. Client, Keeper, Logger and Origin are
// required.
type Config struct {
	// Client is also that of the Keeper's Refresher.
	Client *oauth.Client
	// Keeper keeps the sessions. Its Site seals the login cookies, too.
	Keeper *session.Keeper
	Logger *zap.Logger

	// Origin returns the scheme and host under which the browser sees the site,
	// such as "https://app.example.com". It must not trust what any client may
	// write into a request.
	Origin func(*http.Request) (string, error)
	// OriginalURL returns the URL as the browser asked for it, before any
	// rewriting. Nil: the request's URL.
	OriginalURL func(*http.Request) *url.URL

	// PathPrefix is where the endpoints are, as the browser sees it. Default:
	// "/oauth2".
	PathPrefix string
	Cookie     Cookie

	// RefreshIfOlder says which requests want a token no older than what.
	RefreshIfOlder []AgeLimit
	// RetryUnauthorized refreshes a token that the app calls invalid, and repeats
	// the request if it had no body.
	RetryUnauthorized bool

	// Protects reports whether a request needs a session. Every other one passes
	// as it is, but without our cookies, an Upgrade to other than WebSocket, and
	// headers that some apps take for the path. Nil: all do. So do the endpoints.
	Protects func(*http.Request) bool
	// MayProtect reports whether Protects could report true if the request had
	// another path. Such a request needs a session if an app may read its path as
	// another one. Nil: it could.
	MayProtect func(*http.Request) bool
	// OtherCookies returns the names of the session cookies of all Handlers to
	// which a browser sends cookies of the request's host; this one's may be among
	// them. They reach no app, and no app sets them. With a domain it returns those
	// at all hosts that get a cookie of that domain, which the app sets. It is
	// called for every request that has cookies. Nil: there are none.
	OtherCookies func(r *http.Request, domain string) []string

	// Optional reports whether a request may pass without a session, as nobody.
	// Nil: none may.
	Optional func(*http.Request) bool
	// AlwaysOptional reports whether Optional reports true for the request
	// whatever its path. Other requests need a session if an app may read their
	// path as another one. Nil: it does not.
	AlwaysOptional func(*http.Request) bool
	// Require are the claims a session must have; all of them.
	Require []Requirement
	// UserInfo asks the UserInfo endpoint at login, and adds its claims.
	UserInfo bool

	// Authorization says what becomes of an Authorization header that the client
	// sent. Default: ReplaceAuthorization.
	Authorization AuthorizationPolicy
	// HeaderName and HeaderValue are the header that carries the access token
	// to the app. Default: Authorization, and "Bearer " before the token. With
	// another name, a cache between this Handler and the app does not know that
	// the answers are personal (RFC 9111, section 3.5).
	HeaderName  string
	HeaderValue func(r *http.Request, accessToken string) string
	// SetUser sets the user of a request: nobody (nil) before anything else is
	// done with a request that is this Handler's, and then the user of the
	// session before the request is relayed. It is not called for a request that
	// Protects leaves open.
	SetUser func(r *http.Request, s *session.Session)
	// RelayContext returns the context of a request that is relayed with a
	// session; it is derived from the request's. It is called after SetUser. Nil:
	// the request's own context.
	RelayContext func(r *http.Request) context.Context
	// KeepOutOfLog is told of requests whose URL or answer holds a secret, before
	// anything else is done. The Handler logs logins and logouts itself. Nil:
	// nobody is.
	KeepOutOfLog func(*http.Request)

	// TrustedOrigins may send unsafe requests and open WebSockets from other
	// sites. Each is compared whole, such as "https://admin.example.com".
	TrustedOrigins []string
	// PostLogoutRedirect is where a browser lands after logging out. Empty: on
	// a page that says so.
	PostLogoutRedirect string

	// Meter counts. Nil: nobody does.
	Meter Meter
	// Fail answers a request that ends in an error page. Nil: Error.Write.
	Fail func(w http.ResponseWriter, r *http.Request, e *Error) error
}

// Meter counts what happens, by words that are few and ours.
type Meter interface {
	// Login counts a login that was "completed" or "restarted", or the code of
	// the error page it ended on.
	Login(result string)
	// Refusal counts an error answer by its code.
	Refusal(code string)
}

type noMeter struct{}

func (noMeter) Login(string)   {}
func (noMeter) Refusal(string) {}

// Handler serves one site.
type Handler struct {
	Config
	endpoints map[string]endpoint
	// warnNoRefreshToken: the cause is in the configuration, so once is enough.
	warnNoRefreshToken sync.Once
	errorLog           perMinute
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
	secret bool
}

// New returns a Handler. Its errors name the option or the field in question.
func New(c Config) (*Handler, error) {
	if err := c.checkRequired(); err != nil {
		return nil, err
	}
	c.PathPrefix = cmp.Or(c.PathPrefix, "/oauth2")
	if !isPlainPath(c.PathPrefix) {
		return nil, fmt.Errorf("path_prefix %q: give a path such as /oauth2, without a slash at its end", c.PathPrefix)
	}
	if err := checkHeaderName(c.HeaderName); err != nil {
		return nil, err
	}
	if err := c.Cookie.complete(); err != nil {
		return nil, err
	}
	for _, o := range c.TrustedOrigins {
		if err := CheckOrigin(o); err != nil {
			return nil, fmt.Errorf("trusted_origins: %w", err)
		}
	}
	c.setDefaults()
	h := &Handler{Config: c}
	h.endpoints = map[string]endpoint{
		"/login":           {methods: "GET, HEAD", serve: h.serveLogin},
		callbackPath:       {methods: "GET", serve: h.serveCallback, secret: true},
		"/logout":          {methods: "GET, HEAD, POST", serve: h.serveLogout, secret: true},
		"/logout/callback": {methods: "GET, HEAD", serve: h.serveLoggedOut},
		backchannelPath:    {methods: "POST", serve: h.serveBackchannelLogout, secret: true},
		"/session":         {methods: "GET, HEAD", serve: h.serveSession},
		"/session/refresh": {methods: "POST", serve: h.serveRefresh},
	}
	return h, nil
}

// setDefaults sets what may be left out, besides PathPrefix and Cookie.
func (c *Config) setDefaults() {
	if c.OriginalURL == nil {
		c.OriginalURL = func(r *http.Request) *url.URL { return r.URL }
	}
	if c.Protects == nil {
		c.Protects = func(*http.Request) bool { return true }
	}
	if c.MayProtect == nil {
		c.MayProtect = func(*http.Request) bool { return true }
	}
	if c.AlwaysOptional == nil {
		c.AlwaysOptional = func(*http.Request) bool { return false }
	}
	if c.KeepOutOfLog == nil {
		c.KeepOutOfLog = func(*http.Request) {}
	}
	if c.Optional == nil {
		c.Optional = func(*http.Request) bool { return false }
	}
	c.HeaderName = http.CanonicalHeaderKey(cmp.Or(c.HeaderName, "Authorization"))
	if c.SetUser == nil {
		c.SetUser = func(*http.Request, *session.Session) {}
	}
	if c.RelayContext == nil {
		c.RelayContext = (*http.Request).Context
	}
	if c.Meter == nil {
		c.Meter = noMeter{}
	}
	if c.Fail == nil {
		c.Fail = func(w http.ResponseWriter, r *http.Request, e *Error) error {
			e.Write(w, r)
			return nil
		}
	}
}

// checkRequired refuses what would panic at a request.
func (c *Config) checkRequired() error {
	switch {
	case c.Client == nil:
		return errors.New("Client is missing")
	case c.Keeper == nil:
		return errors.New("Keeper is missing")
	case !c.Keeper.Valid():
		return errors.New("Keeper was not made by session.NewKeeper")
	case c.Logger == nil:
		return errors.New("Logger is missing")
	case c.Origin == nil:
		return errors.New("Origin is missing")
	}
	refresher, ours := c.Keeper.Refresher.(Refresher)
	if p, ok := c.Keeper.Refresher.(*Refresher); ok && p != nil {
		refresher, ours = *p, true
	}
	if ours && refresher.Client != c.Client {
		return errors.New("Client is not the one of the Keeper's Refresher")
	}
	for _, l := range c.RefreshIfOlder {
		if l.Match == nil || l.Age < 0 {
			return errors.New("refresh_if_older: give each limit a Match and an Age that is not negative")
		}
	}
	for _, r := range c.Require {
		if r.Claim == "" || len(r.Values) == 0 {
			return errors.New("require: give a claim and the values it may have")
		}
	}
	return nil
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
		return h.relayBeside(w, r, next)
	}
	owner := h.takeOver(w, r)
	if owner != nil && !isEndpoint && h.hasAmbiguousPath(r) {
		return h.relayOwned(w, r, owner, next) // the user is the owner's
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
	if e.secret { // in this spelling or another
		h.KeepOutOfLog(r)
	}
	ownAnswer(w)
	if !ok || h.OriginalURL(r).EscapedPath() != h.PathPrefix+path {
		return h.fail(w, r, notFound())
	}
	if !methodListed(e.methods, r.Method) {
		w.Header().Set("Allow", e.methods)
		return h.fail(w, r, &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "Method not allowed", Detail: "This address answers " + e.methods + "."})
	}
	// What begins or ends a login must not be replayed from TLS early data
	// (RFC 8470, section 5.2).
	if isEarly(r) {
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
	ownAnswer(w)
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
	stripCookies(r, &c)
	e.setRetryAfter(w)
	return h.Fail(w, r, e)
}

func (h *Handler) logFailure(e *Error) {
	if h.errorLog.allow(e.Code) {
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
	var u *session.UnavailableError
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
