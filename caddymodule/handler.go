// Package caddymodule makes oauth_session a Caddy module: its configuration, in
// JSON and as a Caddyfile directive, and what it shares between the old and the
// new configuration when Caddy reloads.
package caddymodule

import (
	"encoding/json"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/oauth-session/caddy-oauth-session/handler"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler logs browsers in at an OAuth 2.0 or OpenID Connect authorization
// server, keeps their tokens in an encrypted session on the server, refreshes
// them silently, and passes requests on with `Authorization: Bearer <access
// token>`. The browser holds one opaque cookie.
//
// Navigations without a session are sent to the login; any other request
// without one gets status 401 and a JSON body with `login_url`. The handler
// answers the endpoints below `path_prefix`: `login`, `callback`, `logout`,
// `logout/callback`, `backchannel_logout`, `session` and `session/refresh`. Register `<origin>/oauth2/callback` as
// redirect URI and `<origin>/oauth2/logout/callback` as post-logout redirect
// URI at the authorization server.
//
// It sets the placeholders `{http.auth.user.id}` (the `sub` of the user) and
// `{http.auth.user.<claim>}`. They are empty without a session, and for requests
// that the matcher does not protect. Values of these names that directives
// before this one have set are removed; a directive behind it can set them only
// for a request without a session.
//
// Texts, URLs, lists and parameter values may be placeholders that are known at
// start, such as `{env.NAME}` and `{file./path}`; one that is empty or missing is
// an error. Secrets should
// be given so: then they do not occur in the configuration.
type Handler struct {
	// The issuer identifier of the authorization server. Its metadata is
	// fetched when it is first needed, and again later if that fails: starting
	// needs no network. Without an issuer, `authorization_endpoint` and
	// `token_endpoint` make a plain OAuth 2.0 client.
	Issuer string `json:"issuer,omitempty"`
	// Where the metadata is served, if not at the well-known place.
	DiscoveryURL string `json:"discovery_url,omitempty"`

	// Endpoints to use in place of those in the metadata.
	AuthorizationEndpoint string `json:"authorization_endpoint,omitempty"`
	TokenEndpoint         string `json:"token_endpoint,omitempty"`
	UserinfoEndpoint      string `json:"userinfo_endpoint,omitempty"`
	JWKSURI               string `json:"jwks_uri,omitempty"`
	RevocationEndpoint    string `json:"revocation_endpoint,omitempty"`
	EndSessionEndpoint    string `json:"end_session_endpoint,omitempty"`
	PAREndpoint           string `json:"pushed_authorization_request_endpoint,omitempty"`

	// The client identifier. Required.
	ClientID string `json:"client_id,omitempty"`
	// The client secret. Read anew for every use if it is a placeholder, so
	// that a rotated file counts at once. None makes a public client.
	ClientSecret string `json:"client_secret,omitempty"`
	// How the client authenticates: `client_secret_basic`,
	// `client_secret_post` or `none`. Default: from the metadata.
	TokenEndpointAuthMethod string `json:"token_endpoint_auth_method,omitempty"`
	// Files with CA certificates (PEM) for calls to the authorization server,
	// besides those of the system.
	TrustedCA []string `json:"trusted_ca,omitempty"`

	// The public origin of the site, such as `https://app.example.com`.
	// Default: from the request, as far as Caddy trusts it (see
	// `trusted_proxies`).
	BaseURL string `json:"base_url,omitempty"`
	// Scopes to ask for. Default: `openid` with an issuer, none without.
	Scope []string `json:"scope,omitempty"`
	// The parameter `audience` of the authorization request (Auth0).
	Audience string `json:"audience,omitempty"`
	// Resource indicators (RFC 8707).
	Resource []string `json:"resource,omitempty"`
	// Further parameters of the authorization request.
	AuthorizeParam []Param `json:"authorize_param,omitempty"`
	// Further parameters when a code is redeemed.
	TokenParam []Param `json:"token_param,omitempty"`
	// Further parameters when a token is refreshed.
	RefreshParam []Param `json:"refresh_param,omitempty"`
	// Ask the UserInfo endpoint for claims at login.
	UserInfo bool `json:"userinfo,omitempty"`

	// Where sessions are kept. Default: `bolt`, a file in Caddy's data
	// directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=http.handlers.oauth_session.stores inline_key=store"`
	// Keys that seal the sessions, each 32 bytes in base64url. The first seals,
	// all open. One placeholder may stand for several, separated by white space.
	// Files are read again every few seconds. With a shared store, the first key
	// that all instances have seals, and there is no default; otherwise it is a
	// key made in Caddy's data directory.
	Key []string `json:"key,omitempty"`
	// A session ends when it has not been used for so long. Default: 8h.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`
	// A session ends so long after the login. Default: 24h.
	MaxLifetime caddy.Duration `json:"max_lifetime,omitempty"`
	// How the session's cookie is set.
	Cookie *Cookie `json:"cookie,omitempty"`
	// How long a request with an expired token waits for a new one. Default:
	// 10s.
	RefreshTimeout caddy.Duration `json:"refresh_timeout,omitempty"`

	// Requests that want a token no older than an age: it is refreshed first.
	RefreshIfOlder []AgeLimit `json:"refresh_if_older,omitempty"`
	// If the app answers 401 with `WWW-Authenticate: Bearer
	// error="invalid_token"`, refresh the token, and repeat the request if it
	// had no body.
	RetryUnauthorized bool `json:"retry_unauthorized,omitempty"`

	// Requests that need a session. None means all. Others pass as they are, but
	// without our cookies, an `Upgrade` to other than WebSocket, and headers that
	// some apps take for the path. Matchers of the route keep requests from the
	// handler altogether, and so their cookies from being taken off.
	MatchRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// Requests that pass without a session, as nobody.
	OptionalRaw caddyhttp.RawMatcherSets `json:"optional,omitempty" caddy:"namespace=http.matchers"`
	// Claims that a user must have; all of them.
	Require []Requirement `json:"require,omitempty"`
	// What becomes of an Authorization header the client sent: `replace`
	// (default), `keep` or `reject`.
	Authorization string `json:"authorization,omitempty"`
	// The header that carries the token to the app. Default: `Authorization`
	// with the value `Bearer {token}`. With another header, a cache between Caddy
	// and the app does not know that the answers are personal (RFC 9111, section
	// 3.5): the app has to answer with `Cache-Control: private` or `Vary`, or
	// there must be no cache.
	Header *Header `json:"header,omitempty"`
	// Other origins whose pages may send unsafe requests and open WebSockets.
	TrustedOrigins []string `json:"trusted_origins,omitempty"`
	// Where the endpoints are, as the browser sees it. Default: `/oauth2`.
	PathPrefix string `json:"path_prefix,omitempty"`
	// Where a browser lands after logging out. Default: a page that says so.
	PostLogoutRedirect string `json:"post_logout_redirect,omitempty"`

	logger   *zap.Logger
	store    StoreModule
	match    caddyhttp.MatcherSets
	optional caddyhttp.MatcherSets
	pooled   pooled
	keyWork  *keyWork
	ownKey   *ownKey // nil: keys are given
	baseURL  string
	header   headerTemplate
	handler  *handler.Handler
	// hosts are those of the requests that can reach the handler, and of base_url.
	hosts    hosts
	baseHost string
	// cookieInUse is what cookieNames has of this handler.
	cookieInUse cookieUse
}

// Param is a name and a value.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Cookie is how the session's cookie is set. It is always Secure and HttpOnly.
type Cookie struct {
	// Default: `__Host-oauth_session`, or `__Secure-oauth_session` with a
	// domain.
	Name string `json:"name,omitempty"`
	// Also send the cookie to the subdomains of this host.
	Domain string `json:"domain,omitempty"`
	// `lax` (default), `strict` or `none`.
	SameSite string `json:"same_site,omitempty"`
	// Keep a cookie of its own for each site that embeds this one.
	Partitioned bool `json:"partitioned,omitempty"`
}

// Requirement is a claim and the values it may have.
type Requirement struct {
	// The claim's name, or a path with dots into nested ones.
	Claim  string   `json:"claim"`
	Values []string `json:"values"`
}

// AgeLimit is how old a token may be for some requests.
type AgeLimit struct {
	// The requests. None means all.
	MatchRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// The greatest age. 0 wants a new token for each request.
	Age caddy.Duration `json:"age,omitempty"`

	matchers caddyhttp.MatcherSets
}

// Header is the header that carries the token.
type Header struct {
	Name string `json:"name"`
	// Must contain `{token}`. May contain other placeholders.
	Value string `json:"value"`
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.oauth_session",
		New: func() caddy.Module { return new(Handler) },
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	repl := replacerOf(r)
	if repl == nil {
		return h.serve(w, r, next)
	}
	// Before anything else: error routes and matchers may look at the user, too.
	u := claimUser(repl)
	err := h.serve(w, r, next)
	if u.user != nil {
		// Error routes and log fields see the user of the session, not what a
		// directive behind this one has set.
		repl.DeleteByPrefix(userPrefix)
	}
	return err
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	// Caddy starts apps in any order: requests may come before App.Start.
	if h.ownKey != nil {
		if err := h.ownKey.keep(); err != nil {
			w.Header().Set("Cache-Control", "no-store")
			return fail(w, r, noKey(err))
		}
	}
	return h.handler.ServeHTTP(w, r, next)
}

// Cleanup releases what is shared with other configurations. It tolerates a
// Provision that failed half-way.
func (h *Handler) Cleanup() error {
	if h.keyWork != nil {
		h.keyWork.stop() // before the store may be closed
	}
	if h.cookieInUse.name != "" {
		cookieNames.remove(h.cookieInUse)
		h.cookieInUse = cookieUse{}
	}
	return h.pooled.release()
}

// MarshalLogObject keeps secrets out of `servers { trace }`, which logs whole
// handlers.
func (h *Handler) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("issuer", h.Issuer)
	enc.AddString("client_id", h.ClientID)
	enc.AddString("path_prefix", h.PathPrefix)
	return nil
}

// Interface guards
var (
	_ caddy.Module                = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ zapcore.ObjectMarshaler     = (*Handler)(nil)
)
