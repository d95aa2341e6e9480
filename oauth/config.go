package oauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defaultTimeout                = 10 * time.Second
	defaultRefreshResponseTimeout = 60 * time.Second
	openIDScope                   = "openid"
)

// Config describes an authorization server and the registration of this client
// there. [New] checks it.
//
// Two configurations are equal if fmt prints them alike with %#v, apart from
// ClientSecret and RootCAs. Package caddymodule compares them so, in order to keep
// a Client, with its metadata and keys, over a reload of an unchanged
// configuration. A new field must therefore hold strings, numbers or structs and
// slices of these, and no pointer, function, interface or channel, which print as
// an address.
type Config struct {
	// Issuer is the server's issuer identifier. It must equal that in the server's
	// metadata and ID tokens byte for byte. Empty means plain OAuth 2.0 without
	// metadata and ID tokens; Endpoints.Authorization and Endpoints.Token are then
	// required.
	Issuer string

	// DiscoveryURL is the URL of the metadata. Empty means the well-known URLs of
	// the issuer: OpenID Connect Discovery section 4 first, then RFC 8414 section 3.
	// DiscoveryURL needs an Issuer.
	DiscoveryURL string

	// Endpoints override those of the metadata one by one. If they name
	// Authorization and Token, and also JWKS where ID tokens are verified, the
	// client never fetches the metadata, not even for the other endpoints.
	Endpoints Endpoints

	// ClientID is the client identifier: printable ASCII. Required.
	ClientID string

	// ClientSecret returns the client secret. The client calls it for each request,
	// so a rotated secret is in use at once. Nil means a public client.
	ClientSecret func() (string, error)

	// Trace is called before each request to the server with its context, method and URL
	// without the query. It returns the context for the request, and a function that is called with
	// the status (0: none) and the error when the header of the answer is there. Nil: requests are not
	// traced.
	Trace func(ctx context.Context, method, url string) (context.Context, func(status int, err error))

	// ClientKeyFile is a file with the client's private keys: PEM (PKCS #8, PKCS #1 or
	// SEC 1), a JWK or a JWK Set. The first key signs assertions. The public parts of
	// all are those of Client.PublicKeys, so that a server can know a key before it
	// signs. The client looks at the file for each use. It uses a changed content after
	// one second, if it is valid. Empty means no key.
	//
	// The key may be RSA with 2048 bits or more, EC with P-256, P-384 or P-521, or
	// Ed25519. An RSA key signs with PS256 if the metadata lists that, else RS256 or
	// another listed algorithm. The member alg of a JWK overrides that.
	ClientKeyFile string

	// ClientAssertion is an assertion of another program.
	ClientAssertion ClientAssertion

	// AuthMethod is how the client authenticates, wherever it sends a code, a refresh
	// token, a token to revoke, or a pushed request: "none", "client_secret_basic",
	// "client_secret_post" (RFC 6749 section 2.3.1), "client_secret_jwt",
	// "private_key_jwt" (OpenID Connect Core section 9), or "client_assertion" for
	// ClientAssertion.
	//
	// Empty means client_assertion with a ClientAssertion, private_key_jwt with a
	// ClientKeyFile, and none with no credentials. With a ClientSecret, it means
	// client_secret_basic if the metadata lists that or lists no methods, and else
	// client_secret_post.
	AuthMethod string

	// AssertionAudience is the aud of the assertions that the client makes: "issuer",
	// with the typ client-authentication+jwt (draft-ietf-oauth-rfc7523bis), or
	// "token_endpoint", with the typ JWT, for servers that know the older form only
	// (RFC 7523 section 3). Empty means "issuer". An assertion for the issuer cannot be
	// used at another server.
	AssertionAudience string

	// Scopes are requested at login (RFC 6749 section 3.3), one scope per element.
	// Nil means ["openid"] with an Issuer and none without one; an empty slice means
	// none. "openid" needs an Issuer.
	Scopes []string

	// Audience is sent to the authorization endpoint as "audience", a parameter of
	// some servers that names the API. Empty means that it is not sent.
	Audience string

	// Resources are sent to the authorization and token endpoints as "resource"
	// (RFC 8707 section 2): absolute URIs without fragment.
	Resources []string

	// ResponseMode is how the server delivers the answer to the callback:
	// ResponseModeQuery, or ResponseModeFormPost (OAuth 2.0 Form Post Response Mode).
	// It is the parameter response_mode. Empty means that the parameter is not sent,
	// and that the answer is expected in the query.
	ResponseMode string

	// AuthorizeParams, TokenParams and RefreshParams are added to the authorization
	// request, to the redemption of a code and to a refresh. New refuses parameters
	// that this package sets itself. A field of AuthorizationRequest, such as Prompt,
	// overrides the parameter of the same name in AuthorizeParams.
	AuthorizeParams, TokenParams, RefreshParams []Param

	// IDTokenAlgorithm is the algorithm with which the server signs ID tokens, logout
	// tokens and UserInfo for this client: its id_token_signed_response_alg (OpenID
	// Connect Registration section 2). No other is accepted. Asymmetric algorithms only:
	// RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA (Ed25519).
	// Empty means RS256, or the only one of these that the metadata lists.
	IDTokenAlgorithm string

	// TrustedAudiences are further audiences that an ID token or logout token may name
	// next to this client (OpenID Connect Core section 3.1.3.7). Nil means none.
	TrustedAudiences []string

	// UserInfoMethod is how UserInfo sends the access token: "get" in the Authorization
	// header, "post" in the form of a POST request (RFC 6750 section 2). Empty means
	// "get".
	UserInfoMethod string

	// RootCAs verify the server's certificate. Nil means those of the system.
	RootCAs *x509.CertPool

	// Timeout limits each call of a Client, from its first step to the last byte of
	// the response. For Refresh it limits the steps before the token is sent. Zero
	// means 10 seconds; New refuses negative values.
	Timeout time.Duration

	// RefreshResponseTimeout limits the wait for the response to a refresh, counted
	// from the sending of the token. It is longer than Timeout, because a client that
	// gives up while the server rotates a single-use token loses the session. Zero
	// means 60 seconds; New refuses negative values.
	RefreshResponseTimeout time.Duration
}

// Values of Config.ResponseMode.
const (
	ResponseModeQuery    = "query"
	ResponseModeFormPost = "form_post"
)

// Param is a parameter of a request.
type Param struct{ Name, Value string }

// Parameters that the package sets itself, which the configuration must not set.
// Prompt, login_hint, acr_values, ui_locales and max_age are not among them: in
// the configuration they are defaults.
var (
	reservedAuthorizeParams = []string{
		"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce",
		"code_challenge", "code_challenge_method", "audience", "resource", "request", "request_uri",
	}
	reservedTokenParams = []string{
		"grant_type", "code", "code_verifier", "redirect_uri", "refresh_token", "resource",
		"client_id", "client_secret", "client_assertion", "client_assertion_type",
	}
	// Parameters that may be configured, but that no link may choose. They change
	// the content of the tokens, or how the client is identified, or they hold
	// a token, which does not belong into a URL.
	reservedLoginParams = []string{
		"authorization_details", "claims", "registration", "id_token_hint", "dpop_jkt", "client_assertion", "client_assertion_type",
	}
)

// CheckLoginParam refuses the name of a parameter that a link to the login must not
// choose: the client sets it itself, or it changes the content of the tokens.
func CheckLoginParam(name string) error {
	switch {
	case name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != "":
		return fmt.Errorf("the parameter %s: a name has letters, digits, - . and _ only", quote(name))
	case slices.Contains(reservedAuthorizeParams, name) || slices.Contains(reservedLoginParams, name):
		return fmt.Errorf("the parameter %s: a link must not choose it, since the protocol or the configuration does", name)
	}
	return nil
}

// RequestedScopes returns the scopes requested at login: Scopes or their default.
func (cfg Config) RequestedScopes() []string {
	if cfg.Scopes == nil && cfg.Issuer != "" {
		return []string{openIDScope}
	}
	return slices.Clone(cfg.Scopes)
}

// check refuses configurations that cannot work or are not safe.
func (cfg Config) check() error {
	if cfg.ClientID == "" {
		return errors.New("client_id is missing")
	}
	if !isPrintable(cfg.ClientID) {
		return errors.New("client_id: must be printable ASCII")
	}
	if err := cfg.checkServer(); err != nil {
		return err
	}
	if err := cfg.checkAuthMethod(); err != nil {
		return err
	}
	if err := cfg.checkAlgorithm(); err != nil {
		return err
	}
	if m := cfg.UserInfoMethod; m != "" && m != userInfoGet && m != userInfoPost {
		return fmt.Errorf("userinfo %s is unknown: use get or post", quote(m))
	}
	if err := cfg.checkScopes(); err != nil {
		return err
	}
	switch cfg.ResponseMode {
	case "", ResponseModeQuery, ResponseModeFormPost:
	default:
		return fmt.Errorf("response_mode %s is unknown: use query or form_post", quote(cfg.ResponseMode))
	}
	for _, r := range cfg.Resources {
		// RFC 8707 section 2: an absolute URI without a fragment.
		u, err := url.Parse(r)
		if err != nil || !u.IsAbs() || strings.Contains(r, "#") {
			return errors.New("resource: must be an absolute URI without fragment")
		}
	}
	if err := cfg.checkParams(); err != nil {
		return err
	}
	if cfg.Timeout < 0 || cfg.RefreshResponseTimeout < 0 {
		return errors.New("timeout must not be negative")
	}
	return nil
}

func (cfg Config) checkServer() error {
	if cfg.Issuer == "" {
		switch {
		case cfg.DiscoveryURL != "":
			return errors.New("discovery_url needs issuer: the metadata must name the issuer that is expected")
		case cfg.Endpoints.Authorization == "":
			return errors.New("authorization_endpoint is missing: set it, or issuer for a server with metadata")
		case cfg.Endpoints.Token == "":
			return errors.New("token_endpoint is missing: set it, or issuer for a server with metadata")
		}
	} else {
		if err := checkURL(cfg.Issuer); err != nil {
			return fmt.Errorf("issuer: %w", err)
		}
		if strings.Contains(cfg.Issuer, "?") {
			return errors.New("issuer: must not have a query")
		}
	}
	if cfg.DiscoveryURL != "" {
		if err := checkURL(cfg.DiscoveryURL); err != nil {
			return fmt.Errorf("discovery_url: %w", err)
		}
	}
	endpoints := cfg.Endpoints.byName()
	for _, name := range endpointNames {
		if endpoints[name] == "" {
			continue
		}
		if err := checkURL(endpoints[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (cfg Config) checkScopes() error {
	for _, s := range cfg.Scopes {
		// RFC 6749 section 3.3: printable ASCII without space, " and \.
		if s == "" || !isPrintable(s) || strings.ContainsAny(s, ` "\`) {
			return fmt.Errorf("scope %s: must be one scope; write several scopes as separate words", quote(s))
		}
		if s == openIDScope && cfg.Issuer == "" {
			return errors.New("scope openid needs issuer: without it no ID token can be verified")
		}
	}
	return nil
}

func (cfg Config) checkParams() error {
	for _, group := range []struct {
		option   string
		params   []Param
		reserved []string
	}{
		{"authorize_param", cfg.AuthorizeParams, reservedAuthorizeParams},
		{"token_param", cfg.TokenParams, reservedTokenParams},
		{"refresh_param", cfg.RefreshParams, reservedTokenParams},
	} {
		for _, p := range group.params {
			if p.Name == "" {
				return fmt.Errorf("%s: the name is empty", group.option)
			}
			if group.option == "authorize_param" && p.Name == "response_mode" {
				return errors.New("authorize_param response_mode: use the option response_mode query|form_post")
			}
			if slices.Contains(group.reserved, p.Name) {
				return fmt.Errorf("%s %s: the protocol or another option sets this parameter", group.option, p.Name)
			}
		}
	}
	for _, p := range cfg.AuthorizeParams {
		if _, err := parseMaxAge(p.Value); p.Name == "max_age" && err != nil {
			return errors.New("authorize_param max_age: must be a number of seconds")
		}
	}
	return nil
}

func parseMaxAge(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// configuredMaxAge returns the max_age that every login requests, or nil. The
// client must verify it in the ID token (OpenID Connect Core section 3.1.3.7).
func configuredMaxAge(params []Param) *int {
	for _, p := range params {
		if p.Name == "max_age" {
			n, _ := parseMaxAge(p.Value) // checked by checkParams
			return &n
		}
	}
	return nil
}
