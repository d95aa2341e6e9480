package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Config is what a Handler works with. Client, Keeper, Logger and Origin are
// required.
type Config struct {
	// Client is also that of the Keeper's Refresher.
	Client *oauth.Client
	// Keeper keeps the sessions. Its Site seals the login cookies, too.
	Keeper *keeper.Keeper
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
	SetUser func(r *http.Request, u *User)
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

// check refuses what cannot work, and fills in the defaults that it looks at.
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
	if err := validateHeaderName(c.HeaderName); err != nil {
		return err
	}
	if err := c.Cookie.validate(); err != nil {
		return err
	}
	for _, o := range c.TrustedOrigins {
		if err := CheckOrigin(o); err != nil {
			return fmt.Errorf("trusted_origins: %w", err)
		}
	}
	return nil
}

// checkRequired refuses what would panic at a request.
func (c *Config) validateRequired() error {
	switch {
	case c.Client == nil:
		return errors.New("Client is missing")
	case c.Keeper == nil:
		return errors.New("Keeper is missing")
	case !c.Keeper.Valid():
		return errors.New("Keeper was not made by keeper.New")
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

// fillIn sets the defaults.
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
