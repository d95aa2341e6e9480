package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Config configures a Handler. Client, Keeper and Origin are required. Every other
// field has a default.
type Config struct {
	// Client is the client of the authorization server. The Keeper's Refresher must
	// use the same one.
	Client *oauth.Client
	// Keeper keeps the sessions. Its Site also seals the login cookies.
	Keeper *keeper.Keeper
	// Logger gets logins, logouts and failures. Default: nothing is logged.
	Logger *zap.Logger

	// Origin returns the scheme and host under which the browser sees the site,
	// such as "https://app.example.com" (see CheckOrigin). It must not use a value
	// that a client can set, such as X-Forwarded-Host of an untrusted sender: the
	// result becomes part of the redirect URI. The Handler makes it canonical (see
	// CanonicalOrigin).
	Origin func(*http.Request) (string, error)
	// OriginalURL returns the URL as the browser asked for it, before any
	// rewriting. Default: the request's URL.
	OriginalURL func(*http.Request) *url.URL

	// PathPrefix is the path of the endpoints, as the browser sees it. Default:
	// "/oauth2".
	PathPrefix string
	// Cookie has the attributes of the session cookie.
	Cookie Cookie

	// RefreshIfOlder limits the age of the token for some requests. An older token
	// is refreshed first.
	RefreshIfOlder []AgeLimit
	// IdleIgnore reports whether a request does not count as use of its session, for
	// instance because a page sends it again and again without its user. Default: every
	// request counts from its beginning to its end, or until it becomes a WebSocket or
	// an event stream.
	IdleIgnore func(*http.Request) bool
	// CloseExpiredStreams ends WebSockets and event streams when the access token expires
	// with which they began. Default: they end with their session.
	CloseExpiredStreams bool
	// RetryUnauthorized refreshes a token that the app calls invalid (RFC 6750,
	// section 3.1), and repeats the request if it had no body.
	RetryUnauthorized bool

	// Protects reports whether a request needs a session. Every other request
	// passes without a token. It loses the module's cookies, an Upgrade to any
	// protocol but WebSocket, and headers that some apps read instead of the path.
	// The endpoints are never passed on. Default: all requests need a session.
	Protects func(*http.Request) bool
	// MayProtect reports whether Protects could report true for the same request
	// with another path. Such a request needs a session if an app may read its path
	// as another one: some apps read /public/..;/private as /private. Default: it
	// could.
	MayProtect func(*http.Request) bool
	// OtherCookies returns the names of the session cookies of all Handlers to
	// which a browser sends cookies of the request's host. The name of this Handler
	// may be among them. No app gets these cookies or can set them. With a domain,
	// it returns the names at all hosts that receive a cookie of that domain. It is
	// called for every request with cookies. Default: none.
	OtherCookies func(r *http.Request, domain string) []string

	// Optional reports whether a request may pass without a session. It then has no
	// token and no user. Default: no request may.
	Optional func(*http.Request) bool
	// AlwaysOptional reports whether Optional reports true for the request whatever
	// its path. Any other request needs a session if an app may read its path as
	// another one. Default: it does not.
	AlwaysOptional func(*http.Request) bool
	// Require lists the claims that a session must have. All of them must match.
	Require []Requirement
	// LoginParams are parameters of the login endpoint that are handed on to the
	// authorization endpoint, such as "kc_idp_hint", in addition to prompt, login_hint
	// and ui_locales, and, if no page of another site began the login, acr_values and
	// max_age. Anyone who can write a link can choose their values. New refuses names
	// that CheckLoginParam refuses.
	LoginParams []string
	// UserInfo makes each login ask the UserInfo endpoint, and adds its claims.
	UserInfo bool

	// Authorization selects how an Authorization header of the client is treated.
	// Default: ReplaceAuthorization.
	Authorization AuthorizationPolicy
	// HeaderName and HeaderValue are the header that carries the access token to
	// the app. Default: Authorization, with "Bearer " before the token. A cache
	// between the Handler and the app does not know that answers are personal if
	// the header has another name (RFC 9111, section 3.5).
	HeaderName  string
	HeaderValue func(r *http.Request, accessToken string) string
	// SetUser reports the user of a request to the surrounding server, for its log
	// or its error pages. It is called with nil before a request that belongs to
	// this Handler is handled, and again with the user before the request is
	// relayed. It is not called for a request that Protects leaves open. The next
	// handler gets the same user from FromContext. Default: it does nothing.
	SetUser func(r *http.Request, u *User)
	// RelayContext returns the context for a request that is relayed with a
	// session. It must be derived from the request's context, and is called after
	// SetUser. Default: the request's own context.
	RelayContext func(r *http.Request) context.Context
	// KeepOutOfLog is called with a request whose URL or answer contains a secret,
	// before anything else is done. The surrounding server should leave the request
	// out of its access log; the Handler logs logins and logouts itself. Default:
	// it does nothing.
	KeepOutOfLog func(*http.Request)

	// TrustedOrigins lists other origins whose pages may send unsafe requests and
	// open WebSockets. An origin must match as a whole, such as
	// "https://admin.example.com"; the case of letters and a default port do not
	// matter. With Cookie.Partitioned, they may also frame the Handler's pages.
	TrustedOrigins []string
	// PostLogoutRedirect is the URL to which the browser goes after a logout.
	// Default: a page that confirms the logout.
	PostLogoutRedirect string

	// OmitIDTokenHint keeps the ID token out of the URL of a logout, which browsers and
	// servers log. The authorization server gets `client_id`, and `logout_hint` with the
	// claim `login_hint` of the ID token or with its `sid`. Some servers then ask the
	// user, and some refuse. Default: the ID token is sent (`id_token_hint`).
	OmitIDTokenHint bool

	// FrontchannelLogout lets a page of the authorization server end the session of the
	// browser that shows it (OpenID Connect Front-Channel Logout 1.0). It requires an
	// issuer and the scope openid. Default: only POST requests of the authorization
	// server do (back-channel logout).
	FrontchannelLogout bool

	// Meter counts logins and errors. Default: nothing is counted.
	Meter Meter
	// Audit is called for each event of a request that an operator may have to account
	// for. NewAuditObserver has those of the keeper. It must not block. Default: nothing.
	Audit func(r *http.Request, e AuditEvent)
	// Note is called with the reference of an error page or problem document, so that the
	// line of the request in an access log can be found by it. Default: nothing.
	Note func(r *http.Request, reference string)
	// RequestID returns the name of a request in other logs, or "". It is called for log
	// lines only. Default: "".
	RequestID func(r *http.Request) string
	// Fail answers a request that ends in an error page: a navigation, a form, or any
	// other request that names text/html in Accept. All others get a problem document
	// (RFC 9457), and the callback always gets the Handler's own page, because its
	// URL contains the code. ServeHTTP returns Fail's error, and then expects that
	// nothing was written. Default: Error.Write.
	Fail func(w http.ResponseWriter, r *http.Request, e *Error) error
	// ErrorRedirect returns the Location with which the surrounding server answers an
	// error of Fail or of the next handler, or "" if it shows a page. A redirect to
	// the login can be part of an endless loop, which the Handler then ends with a
	// page of its own. It is called only shortly after a login. Default: "".
	ErrorRedirect func(r *http.Request, err error) string
}

// Meter counts events for metrics. All labels come from a short fixed list, so they
// can be label values of a metric.
type Meter interface {
	// Login counts a login by its result: "completed", "restarted", or the code of
	// the error page on which it ended.
	Login(result string)
	// Refusal counts an error answer by its code.
	Refusal(code string)
	// TokenRequest measures a request to the token endpoint with a code. Refresher.Observe
	// is called for refreshes.
	TokenRequest(outcome keeper.Outcome, took time.Duration)
}

type noMeter struct{}

func (noMeter) Login(string)                               {}
func (noMeter) Refusal(string)                             {}
func (noMeter) TokenRequest(keeper.Outcome, time.Duration) {}

// validate refuses a configuration that cannot work. It sets the defaults of the
// fields that it checks.
func (c *Config) validate() error {
	if err := c.validateRequired(); err != nil {
		return err
	}
	if c.PathPrefix == "" {
		c.PathPrefix = "/oauth2"
	}
	if !isPlainPath(c.PathPrefix) {
		return fmt.Errorf("path_prefix %q: give a path such as /oauth2, without a slash at its end", c.PathPrefix)
	}
	if c.FrontchannelLogout && (c.Client.Issuer() == "" || !c.Client.OpenID()) {
		return errors.New("frontchannel_logout needs an issuer and the scope openid: without an ID token, no session has a sid")
	}
	if c.Keeper.SessionLimit > 0 && !c.Client.OpenID() && !c.UserInfo {
		return errors.New("session_limit needs the scope openid or userinfo: without them, no session has a user")
	}
	if err := validateHeaderName(c.HeaderName); err != nil {
		return err
	}
	if err := c.Cookie.validate(); err != nil {
		return err
	}
	for _, name := range c.LoginParams {
		if err := CheckLoginParam(name); err != nil {
			return fmt.Errorf("login_param: %w", err)
		}
	}
	return c.validateTrustedOrigins()
}

// validateTrustedOrigins checks TrustedOrigins and makes them canonical.
func (c *Config) validateTrustedOrigins() error {
	var trusted []string
	for _, o := range c.TrustedOrigins {
		if err := CheckOrigin(o); err != nil {
			return fmt.Errorf("trusted_origins: %w", err)
		}
		canonical, _ := CanonicalOrigin(o) // CheckOrigin has accepted it
		trusted = append(trusted, canonical)
	}
	c.TrustedOrigins = trusted
	return nil
}

// validateRequired refuses a configuration that would panic at a request.
func (c *Config) validateRequired() error {
	switch {
	case c.Client == nil:
		return errors.New("missing Client")
	case c.Keeper == nil:
		return errors.New("missing Keeper")
	case !c.Keeper.Valid():
		return errors.New("invalid Keeper: keeper.New has not made it")
	case c.Origin == nil:
		return errors.New("missing Origin")
	}
	if err := c.validateRefresher(); err != nil {
		return err
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

// validateRefresher compares the Keeper's Refresher with the Config. A refresh with
// another client would fail, and one without UserInfo would lose claims.
func (c *Config) validateRefresher() error {
	refresher, ok := c.Keeper.Refresher.(Refresher)
	if p, isPointer := c.Keeper.Refresher.(*Refresher); isPointer {
		if p == nil {
			return errors.New("the Keeper's Refresher is nil")
		}
		refresher, ok = *p, true
	}
	switch {
	case !ok:
		return nil // another implementation
	case refresher.Client != c.Client:
		return errors.New("the Keeper's Refresher has another Client")
	case refresher.UserInfo != c.UserInfo:
		return errors.New("the Keeper's Refresher has another UserInfo")
	}
	return nil
}

// setDefaults sets the defaults that need no check.
func (c *Config) setDefaults() {
	always := func(*http.Request) bool { return true }
	never := func(*http.Request) bool { return false }
	for _, f := range []struct {
		field    *func(*http.Request) bool
		standard func(*http.Request) bool
	}{
		{&c.Protects, always}, {&c.MayProtect, always}, {&c.AlwaysOptional, never}, {&c.Optional, never},
	} {
		if *f.field == nil {
			*f.field = f.standard
		}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.OriginalURL == nil {
		c.OriginalURL = func(r *http.Request) *url.URL { return r.URL }
	}
	if c.KeepOutOfLog == nil {
		c.KeepOutOfLog = func(*http.Request) {}
	}
	if c.Audit == nil {
		c.Audit = func(*http.Request, AuditEvent) {}
	}
	if c.Note == nil {
		c.Note = func(*http.Request, string) {}
	}
	if c.RequestID == nil {
		c.RequestID = func(*http.Request) string { return "" }
	}
	if c.HeaderName == "" {
		c.HeaderName = "Authorization"
	}
	c.HeaderName = http.CanonicalHeaderKey(c.HeaderName)
	if c.SetUser == nil {
		c.SetUser = func(*http.Request, *User) {}
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
