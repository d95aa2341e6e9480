package caddymodule

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/oauth-session/caddy-oauth-session/handler"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler logs browsers in at an OAuth 2.0 or OpenID Connect authorization server,
// keeps their tokens in an encrypted session on the server, refreshes the tokens, and
// relays requests with `Authorization: Bearer <access token>`. The browser holds one
// opaque cookie.
//
// A navigation without a session is redirected to the login. Any other request without
// a session gets status 401 and a JSON body with `login_url`. The handler itself answers
// the endpoints below `path_prefix`: `login`, `callback`, `logout`, `logout/callback`,
// `backchannel_logout`, `frontchannel_logout` (if configured), `session`,
// `session/refresh`, `client.json` (what to register at the authorization server) and
// `jwks.json` (the public keys of the client). Register `<origin>/oauth2/callback` as
// redirect URI and `<origin>/oauth2/logout/callback` as post-logout redirect URI at the
// authorization server, and `<origin>/oauth2/login` as
// initiate_login_uri if it begins logins by itself.
//
// The handler sets the placeholders `{http.auth.user.id}` (the `sub` claim of the user)
// and `{http.auth.user.<claim>}`. They are empty without a session, and for requests that
// the matcher does not protect. The handler removes values of these names that earlier
// directives have set. A later directive can set them only for a request without a
// session.
//
// Texts, URLs, lists and parameter values may be placeholders that are known at start,
// such as `{env.NAME}` and `{file./path}`. An empty or missing placeholder is an error.
// Give secrets as placeholders: the configuration then does not contain them.
type Handler struct {
	// The issuer identifier of the authorization server. The handler fetches its metadata
	// when it first needs it, and tries again later if that fails: a start needs no
	// network. Without an issuer, `authorization_endpoint` and `token_endpoint` make a
	// plain OAuth 2.0 client.
	Issuer string `json:"issuer,omitempty"`
	// The URL of the metadata. Default: the well-known place below the issuer.
	DiscoveryURL string `json:"discovery_url,omitempty"`

	// The authorization endpoint. Default: from the metadata, as for the six endpoints
	// that follow.
	AuthorizationEndpoint string `json:"authorization_endpoint,omitempty"`
	// The token endpoint.
	TokenEndpoint string `json:"token_endpoint,omitempty"`
	// The UserInfo endpoint.
	UserinfoEndpoint string `json:"userinfo_endpoint,omitempty"`
	// The URL of the authorization server's keys (JWK set).
	JWKSURI string `json:"jwks_uri,omitempty"`
	// The revocation endpoint (RFC 7009).
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`
	// The end session endpoint (OpenID Connect RP-Initiated Logout).
	EndSessionEndpoint string `json:"end_session_endpoint,omitempty"`
	// The pushed authorization request endpoint (RFC 9126). The handler uses it if it is
	// set here, if the metadata requires pushed requests, or if the metadata offers them and
	// the authorization URL would be longer than 2,000 bytes.
	PAREndpoint string `json:"pushed_authorization_request_endpoint,omitempty"`

	// The client identifier. Required.
	ClientID string `json:"client_id,omitempty"`
	// The client secret. The handler expands a placeholder again for each use, so a rotated
	// file takes effect at once. Without credentials, the client is public.
	ClientSecret string `json:"client_secret,omitempty"`
	// How the client authenticates: `client_secret_basic`, `client_secret_post`,
	// `client_secret_jwt`, `private_key_jwt`, `client_assertion` or `none`. The handler
	// never finds it out by trying. Default: `private_key_jwt` with a `client_key`,
	// `client_assertion` with a `client_assertion`, `none` with no credentials, and from
	// the metadata with a `client_secret`.
	TokenEndpointAuthMethod string `json:"token_endpoint_auth_method,omitempty"`
	// A file with the private key of the client: PEM without a passphrase, a JWK or a JWK
	// Set. RSA with 2048 bits or more, EC with P-256, P-384 or P-521, and Ed25519 are
	// possible. The first key signs the assertions of `private_key_jwt`, and `jwks.json`
	// publishes all keys of the file. The handler looks at the file for each use. A
	// changed content takes effect after one second; one that cannot be used does not
	// replace the former keys. Default: none.
	ClientKey string `json:"client_key,omitempty"`
	// An assertion about the client that another program writes and renews: a service
	// account token of Kubernetes, a federated token of Entra workload identity, or a
	// SPIFFE JWT-SVID. The handler looks at the file for each use. Default: none.
	ClientAssertion *ClientAssertion `json:"client_assertion,omitempty"`
	// The audience of the assertions that the handler makes. `issuer` is that of the draft
	// rfc7523bis, with the type `client-authentication+jwt`; no other server accepts such
	// an assertion. `token_endpoint` gives the older form for servers that refuse it.
	// Default: `issuer`.
	AssertionAudience string `json:"assertion_audience,omitempty"`
	// The algorithm with which the server signs ID tokens, logout tokens and UserInfo for
	// this client, as it is registered there: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`,
	// `PS512`, `ES256`, `ES384`, `ES512` or `EdDSA`. The handler accepts no other. Default:
	// `RS256`, or the only one of these that the metadata lists.
	IDTokenSignedResponseAlg string `json:"id_token_signed_response_alg,omitempty"`
	// Further audiences that an ID token or logout token may have besides this client. The
	// handler refuses a token with any other audience. Default: none.
	TrustedAudiences []string `json:"trusted_audiences,omitempty"`
	// Files with CA certificates (PEM) to trust for the authorization server, in addition
	// to those of the system.
	TrustedCA []string `json:"trusted_ca,omitempty"`

	// The public origin of the site, such as `https://app.example.com`. Default: the
	// origin of the request; `X-Forwarded-*` headers count if Caddy's `trusted_proxies`
	// allows. The case of letters and a default port (`:443` with https) do not matter.
	BaseURL string `json:"base_url,omitempty"`
	// The scopes to request. Default: `openid` with an issuer, none without.
	Scope []string `json:"scope,omitempty"`
	// The parameter `audience` of the authorization request (Auth0). Default: none.
	Audience string `json:"audience,omitempty"`
	// Resource indicators (RFC 8707). Default: none.
	Resource []string `json:"resource,omitempty"`
	// How the authorization server delivers its answer to the callback: `query` in the URL, or
	// `form_post` as a form, which keeps the code out of the browser's history and of logs.
	// Apple requires `form_post` for the scopes `name` and `email`. Default: `query`, without
	// the parameter `response_mode` in the request.
	ResponseMode string `json:"response_mode,omitempty"`
	// An additional parameter of the authorization request. The option may repeat.
	AuthorizeParam []Param `json:"authorize_param,omitempty"`
	// An additional parameter of the request that redeems a code. The option may repeat.
	TokenParam []Param `json:"token_param,omitempty"`
	// An additional parameter of a refresh request. The option may repeat.
	RefreshParam []Param `json:"refresh_param,omitempty"`
	// Parameters of the endpoint `login` that the handler hands on to the authorization
	// endpoint, such as `kc_idp_hint` (Keycloak), `domain_hint` (Entra ID) or `connection`
	// (Auth0): they replace those of `authorize_param`. Anyone who can write a link chooses
	// their values. `prompt`, `login_hint` and `ui_locales` are always handed on, and
	// `acr_values` and `max_age` unless a page of another site began the login. Default: no
	// others.
	LoginParam []string `json:"login_param,omitempty"`
	// Fetch claims from the UserInfo endpoint at login, signed or plain. `get` sends the
	// access token in the header, `post` in the body; in a Caddyfile, the option alone
	// means `get`. A refreshed ID token renews the other claims. Default: off.
	UserInfo string `json:"userinfo,omitempty"`

	// Where sessions are kept: `bolt` in a file, `memory` until Caddy stops, `redis` for
	// any number of instances, or another module of the namespace. Default: `bolt`, in
	// Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=http.handlers.oauth_session.stores inline_key=store"`
	// Keys that seal the sessions, each 32 bytes in base64url, as `caddy oauth-session
	// keygen` prints them. The first key seals, and all of them open. One placeholder may
	// hold several keys, separated by white space. The handler reads files again every few
	// seconds. With a shared store, the option is required, and the first key that all
	// instances have seals. Default: a key that the handler makes in Caddy's data
	// directory.
	Key []string `json:"key,omitempty"`
	// A session ends when it has not been used for this time, and its WebSockets and event
	// streams end with it. Every request is use, from its beginning to its end, except those
	// of `idle_ignore`. An open WebSocket or event stream is not. The handler writes a use at
	// most every five minutes (5 % of the time-out, if that is less), so a session may live
	// longer by that time, and never shorter. Default: 8h.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`
	// Requests that are no use of the session, such as `/api/poll*` of a page that polls
	// without its user. They are relayed and refresh the token as usual, but the session
	// becomes idle in spite of them, and then they end with it. The option may repeat. With
	// a directive inside another one of the same login, the outer one decides. Default: none.
	IdleIgnoreRaw caddyhttp.RawMatcherSets `json:"idle_ignore,omitempty" caddy:"namespace=http.matchers"`
	// A session ends this time after the login. Default: 24h.
	MaxLifetime caddy.Duration `json:"max_lifetime,omitempty"`
	// The largest number of sessions of a user. A login ends the oldest sessions beyond it, at
	// all instances, and their browsers show a page with the reason. A login that replaces
	// the session of its browser counts once. The handler must know the user: by an ID token
	// or by `userinfo`. Default: no limit.
	SessionLimit int `json:"session_limit,omitempty"`
	// What happens to WebSockets and event streams when the access token expires that they
	// brought to the app: `keep` them until their session ends, or `close` them. A client
	// that connects again brings a fresh token. Use `close` if the app calls other servers
	// with the token of an open stream. Default: `keep`.
	StreamTokenExpiry string `json:"stream_token_expiry,omitempty"`
	// The attributes of the session cookie, which is always `Secure` and `HttpOnly`.
	// Default: `__Host-oauth_session`, `SameSite=Lax`.
	Cookie *Cookie `json:"cookie,omitempty"`
	// How long a request with an expired token waits for a new one. Default: 10s.
	RefreshTimeout caddy.Duration `json:"refresh_timeout,omitempty"`

	// Requests that need a token no older than an age: the handler refreshes an older token
	// first. `0s` means a new token for each request. The option may repeat.
	RefreshIfOlder []AgeLimit `json:"refresh_if_older,omitempty"`
	// If the app answers 401 with `WWW-Authenticate: Bearer error="invalid_token"`,
	// refresh the token, and repeat the request if it had no body. Default: off.
	RetryUnauthorized bool `json:"retry_unauthorized,omitempty"`

	// The requests that need a session; in a Caddyfile, the directive's matcher. Other
	// requests pass unchanged, except that the handler removes its own cookies, an
	// `Upgrade` to anything but WebSocket, and headers that some apps take for the path.
	// Matchers of the route keep requests from the handler, so it cannot remove its
	// cookies from them. Default: all requests.
	MatchRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// Requests that pass without a session, and without `Authorization`: with
	// `authorization keep`, they keep the header of the client. With a session, they get
	// the token. The option may repeat. Default: none.
	OptionalRaw caddyhttp.RawMatcherSets `json:"optional,omitempty" caddy:"namespace=http.matchers"`
	// A claim that the user must have, with one of the values: the claim is the value, or a
	// list that contains it. The name may be a path with dots into nested claims. The
	// option may repeat; all requirements must hold. Default: none.
	Require []Requirement `json:"require,omitempty"`
	// How to treat an `Authorization` header of the client: `replace` it with the token,
	// `keep` it and send no token (the request still needs a session), or `reject` the
	// request with status 400. An app with a login of its own needs `keep`; `header` then
	// gives the token another name. When `replace` removes a header, the log says so once a
	// minute. Default: `replace`.
	Authorization string `json:"authorization,omitempty"`
	// The header that carries the token to the app; the value contains `{token}`. With a
	// header other than `Authorization`, Caddy's DEBUG log shows the value. A cache between
	// Caddy and the app then does not know that the answers are personal (RFC 9111,
	// section 3.5): the app must answer with `Cache-Control: private` or `Vary`, or there
	// must be no such cache. Default: `Authorization "Bearer {token}"`.
	Header *Header `json:"header,omitempty"`
	// Other origins whose pages may send unsafe requests and open WebSockets. Their
	// preflight requests pass without a session. With `cookie { partitioned }`, their pages
	// may show the handler's own pages in a frame. The case of letters and a default port do
	// not matter. Default: none.
	TrustedOrigins []string `json:"trusted_origins,omitempty"`
	// The path of the handler's own endpoints, as the browser sees it. Default: `/oauth2`.
	PathPrefix string `json:"path_prefix,omitempty"`
	// Whether the URL of a logout has the ID token (`id_token_hint`), with the user's claims:
	// `on` or `off`. Browsers and servers keep URLs in their logs. With `off`, the
	// authorization server gets `client_id`, and `logout_hint` with the claim `login_hint`
	// of the ID token (Entra ID) or with its `sid`. Some servers then ask the user, and some
	// refuse (Okta). Default: `on`, except for an ID token of more than 4 KiB.
	IDTokenHint string `json:"id_token_hint,omitempty"`
	// A page of the authorization server may end the session of the browser that shows it,
	// by the endpoint `frontchannel_logout` (OpenID Connect Front-Channel Logout). It needs
	// `iss`, `sid` and the session's cookie, which browsers send to a frame only if the
	// server is on the same site, or with `same_site none` where they allow third-party
	// cookies. Prefer back-channel logout. Default: off.
	FrontchannelLogout bool `json:"frontchannel_logout,omitempty"`
	// Where the browser goes after signing out: a path of the site or a URL. Default: a
	// page that says so.
	PostLogoutRedirect string `json:"post_logout_redirect,omitempty"`

	logger   *zap.Logger
	store    StoreModule
	match    caddyhttp.MatcherSets
	optional caddyhttp.MatcherSets
	// idleIgnore has the matchers of IdleIgnoreRaw.
	idleIgnore caddyhttp.MatcherSets
	pooled     pooled
	app        *App    // nil before Provision
	ownKey     *ownKey // nil: keys are given
	baseURL    string
	header     headerTemplate
	handler    *handler.Handler
	// hosts has the hosts of requests that can reach the handler, and that of base_url.
	hosts    hosts
	baseHost string
	// callbackUnrouted says that no request for the callback reaches the handler.
	callbackUnrouted bool
	ctx              caddy.Context
	label            string // see siteLabel
	metrics          siteMetrics
	auditLogger      *zap.Logger
	use              sharing
	// cookieInUse is this handler's entry in cookieNames.
	cookieInUse cookieUse
	// served is this handler's entry in servedSites; nil before Provision has succeeded.
	served *servedSite
}

// Param is a name and a value.
type Param struct {
	// The name.
	Name string `json:"name"`
	// The value.
	Value string `json:"value"`
}

// ClientAssertion is a file with an assertion about the client.
type ClientAssertion struct {
	// The file. It holds one JWT.
	File string `json:"file"`
	// The `client_assertion_type`: `jwt-bearer`, `jwt-spiffe` for a JWT-SVID, or a whole
	// URI. Default: `jwt-bearer`.
	Type string `json:"type,omitempty"`
}

// Cookie has the attributes of the session cookie. It is always Secure and HttpOnly.
type Cookie struct {
	// The name. Default: `__Host-oauth_session`, or `__Secure-oauth_session` with a
	// domain.
	Name string `json:"name,omitempty"`
	// A host: browsers send the cookie to its subdomains, too. Default: this host alone.
	Domain string `json:"domain,omitempty"`
	// `lax`, `strict` or `none`. Default: `lax`.
	SameSite string `json:"same_site,omitempty"`
	// Browsers keep a separate cookie for each site that embeds this one in a frame (CHIPS),
	// and a frame may begin a login. It requires `same_site none`. The page on placement
	// names the conditions under "an app in a frame". Default: off.
	Partitioned bool `json:"partitioned,omitempty"`
}

// Requirement is a claim and its permitted values.
type Requirement struct {
	// The claim's name, or a path with dots into nested claims.
	Claim string `json:"claim"`
	// The permitted values.
	Values []string `json:"values"`
}

// AgeLimit is the greatest age of a token for some requests.
type AgeLimit struct {
	// The requests. Default: all.
	MatchRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`
	// The greatest age. 0 means a new token for each request.
	Age caddy.Duration `json:"age,omitempty"`

	matchers caddyhttp.MatcherSets
}

// Header is the header that carries the token.
type Header struct {
	// The name of the header.
	Name string `json:"name"`
	// The value. It contains `{token}`, and may contain other placeholders.
	Value string `json:"value"`
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
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
	// This comes first, because error routes and matchers may read the user, too.
	u := claimUser(repl)
	err := h.serve(w, r, next)
	if u.user != nil {
		// Error routes and log fields must see the user of the session, not a value that
		// a later directive has set.
		repl.DeleteByPrefix(userPrefix)
	}
	return err
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	// Caddy starts apps in any order, so requests may come before App.Start.
	if h.ownKey != nil {
		if err := h.ownKey.keep(); err != nil {
			return h.handler.Refuse(w, r, noKey(err))
		}
	}
	return h.handler.ServeHTTP(w, r, next)
}

// Cleanup releases the store and the client, which other configurations may share. It
// also works after a Provision that failed half-way.
func (h *Handler) Cleanup() error {
	if h.cookieInUse.name != "" {
		cookieNames.remove(h.cookieInUse)
		h.cookieInUse = cookieUse{}
	}
	if h.served != nil {
		servedSites.remove(h.served)
		if !slices.Contains(servedSites.labels(), h.label) {
			h.metrics.end()
		}
		h.served = nil
	}
	if h.app == nil {
		return nil
	}
	// The first handler that is cleaned up stops the tasks of all, before release may
	// close a store.
	h.app.keyTasks.stop()
	h.app.preflight.stop()
	h.app.events.stop()
	h.app.closeStores()
	return h.pooled.release(h.app.stopBy())
}

// MarshalLogObject keeps secrets out of Caddy's `servers { trace }`, which logs whole
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
