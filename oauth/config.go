package oauth

import (
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
	defaultTimeout              = 10 * time.Second
	defaultRefreshAnswerTimeout = 60 * time.Second
	openIDScope                 = "openid"
)

// Config describes an authorization server and our registration there.
type Config struct {
	// Issuer is the server's issuer identifier, compared byte for byte with
	// its metadata and its ID tokens. Empty means plain OAuth 2.0: then
	// Endpoints.Authorization and Endpoints.Token are required.
	Issuer string

	// DiscoveryURL is where the metadata is served, if not at the issuer's
	// well-known place. It needs an Issuer.
	DiscoveryURL string

	// Endpoints override the metadata one by one. When Authorization and
	// Token are set, and JWKS too where ID tokens are verified, the metadata
	// is not asked for at all, not even for the endpoints left empty.
	Endpoints Endpoints

	// ClientID is our client identifier. Required.
	ClientID string

	// ClientSecret returns the client secret. It is called for each request,
	// so that a rotated secret counts at once. Nil means a public client.
	ClientSecret func() (string, error)

	// AuthMethod is how the client authenticates: "none",
	// "client_secret_basic" or "client_secret_post" (RFC 6749 section 2.3.1).
	// Empty means "none" without a secret; with one, client_secret_basic if
	// the metadata lists it or lists nothing, else client_secret_post.
	AuthMethod string

	// Scopes are asked for at login. Nil means ["openid"] with an Issuer and
	// none without; an empty slice means none. "openid" needs an Issuer.
	Scopes []string

	// Audience is sent as parameter "audience" to the authorization endpoint,
	// for servers that name the API so. Empty: not sent.
	Audience string

	// Resources are sent as "resource" to the authorization and the token
	// endpoint (RFC 8707): absolute URIs without fragment.
	Resources []string

	// AuthorizeParams, TokenParams and RefreshParams are added to the
	// authorization request, to the redemption of a code and to a refresh.
	// Parameters that this package sets itself are refused. Parameters of
	// AuthorizeParams that an AuthorizationRequest sets too, such as prompt,
	// are defaults.
	AuthorizeParams, TokenParams, RefreshParams []Param

	// RootCAs verify the server's certificate. Nil means the system's.
	RootCAs *x509.CertPool

	// Timeout limits each call of a Client, all its steps and the reading of
	// the answer included, except for Refresh once the token is sent. Zero means
	// 10 seconds.
	Timeout time.Duration

	// RefreshResponseTimeout limits the wait for the answer to a refresh, counted
	// from the sending of the token: a server that has rotated a single-use token
	// must not be given up while it is still at work. Zero means 60 seconds.
	RefreshResponseTimeout time.Duration
}

// Param is a parameter of a request.
type Param struct{ Name, Value string }

// Parameters that the protocol code sets, per request. Prompt, login_hint,
// acr_values, ui_locales and max_age are not among them: configured, they are
// defaults.
var (
	reservedAuthorizeParams = []string{
		"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce",
		"code_challenge", "code_challenge_method", "audience", "resource", "request", "request_uri",
	}
	reservedTokenParams = []string{
		"grant_type", "code", "code_verifier", "redirect_uri", "refresh_token", "resource",
		"client_id", "client_secret", "client_assertion", "client_assertion_type",
	}
)

// RequestedScopes returns the scopes asked for at login: Scopes, or their
// default.
func (cfg Config) RequestedScopes() []string {
	if cfg.Scopes == nil && cfg.Issuer != "" {
		return []string{openIDScope}
	}
	return slices.Clone(cfg.Scopes)
}

// check refuses what cannot work or is not safe.
func (cfg Config) check() error {
	if cfg.ClientID == "" {
		return errors.New("client_id is missing")
	}
	if !printable(cfg.ClientID) {
		return errors.New("client_id: only printable ASCII characters are allowed")
	}
	if err := cfg.checkServer(); err != nil {
		return err
	}
	if err := cfg.checkAuthMethod(); err != nil {
		return err
	}
	if err := cfg.checkScopes(); err != nil {
		return err
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

func (cfg Config) checkAuthMethod() error {
	switch cfg.AuthMethod {
	case "":
	case authNone:
		if cfg.ClientSecret != nil {
			return errors.New("client_secret is set, but token_endpoint_auth_method is none")
		}
	case authBasic, authPost:
		if cfg.ClientSecret == nil {
			return fmt.Errorf("token_endpoint_auth_method %s needs client_secret", cfg.AuthMethod)
		}
	case "client_secret_jwt", "private_key_jwt", "tls_client_auth":
		return fmt.Errorf("token_endpoint_auth_method %s is not supported yet", cfg.AuthMethod)
	default:
		return fmt.Errorf("token_endpoint_auth_method %s is unknown: use client_secret_basic, client_secret_post or none",
			quote(cfg.AuthMethod))
	}
	return nil
}

func (cfg Config) checkScopes() error {
	for _, s := range cfg.Scopes {
		// RFC 6749 section 3.3: printable ASCII without space, " and \.
		if s == "" || !printable(s) || strings.ContainsAny(s, ` "\`) {
			return fmt.Errorf("scope %s: give each scope as a word of its own", quote(s))
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
			if slices.Contains(group.reserved, p.Name) {
				return fmt.Errorf("%s %s: this parameter is set by the protocol or an option of its own", group.option, p.Name)
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

// configuredMaxAge returns the max_age that every login asks for, because what
// is asked for must be verified in the ID token.
func configuredMaxAge(params []Param) *int {
	for _, p := range params {
		if p.Name == "max_age" {
			n, _ := parseMaxAge(p.Value) // checked by checkParams
			return &n
		}
	}
	return nil
}
