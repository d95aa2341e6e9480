// Package oauth is the client of one authorization server: it reads the
// server's metadata, builds authorization requests, redeems codes and refresh
// tokens, verifies ID tokens and calls the revocation and UserInfo endpoints.
// It speaks OAuth 2.0 (RFC 6749 with PKCE, RFC 7636) and OpenID Connect Core,
// Discovery and RP-Initiated Logout.
//
// The package serves no HTTP and logs nothing: what goes wrong is in the
// returned error. No error text holds a token, a code, a verifier, a client
// secret or a body the server sent.
//
// # Security
//
// Connections need a verified certificate and TLS 1.2; plain http is accepted
// to loopback hosts only. Redirects are never followed, so a credential goes
// to the configured endpoint or nowhere. A grant is sent at most once per
// call, and the client authentication method is never found by trial. Answers
// are limited to 1 MiB and each call to [Config.Timeout], but for the answer to a
// refresh ([Config.RefreshResponseTimeout]).
//
// # Errors
//
// Calls to the token, revocation, pushed authorization request and UserInfo
// endpoints fail with a [*TokenError], whose Kind says what the failure means
// for the grant. [ErrMetadataUnavailable] and [ErrKeysUnavailable] mark
// failures that pass by themselves, [ErrNoEndpoint] an endpoint that neither
// the configuration nor the server's metadata names.
package oauth

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// Client is the client of one authorization server. It is safe for concurrent
// use and has nothing to close: it runs goroutines only while it fetches
// metadata or keys, and those end within [Config.Timeout].
type Client struct {
	issuer          string
	endpoints       map[string]string // overrides, by their metadata name
	clientID        string
	clientSecret    func() (string, error)
	authMethod      string // "" = from the metadata
	scopes          []string
	audience        string
	resources       []string
	authorizeParams []Param
	tokenParams     []Param
	refreshParams   []Param
	maxAge          *int // of authorizeParams
	timeout         time.Duration
	// refreshAnswerTimeout is Config.RefreshResponseTimeout or its default.
	refreshAnswerTimeout time.Duration

	http         *http.Client
	codes        slots
	pushes       slots
	userInfos    slots
	revokes      slots
	static       bool // the configuration names every endpoint needed
	metadataURLs []string
	discovery    *cache[metadata]
	keys         *cache[keySet]

	// What the tokens of each kind may cost in fetches of keys.
	loginKeys, refreshKeys, logoutKeys fetchBudget
}

// New checks the configuration and returns a client. It does not use the
// network: metadata and keys are fetched when they are first needed, and
// fetched again after a failure. Errors name the option as it is written in
// the Caddyfile and never hold a secret.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{
		issuer:          cfg.Issuer,
		endpoints:       cfg.Endpoints.byName(),
		clientID:        cfg.ClientID,
		clientSecret:    cfg.ClientSecret,
		authMethod:      cfg.AuthMethod,
		scopes:          cfg.RequestedScopes(),
		audience:        cfg.Audience,
		resources:       slices.Clone(cfg.Resources),
		authorizeParams: slices.Clone(cfg.AuthorizeParams),
		tokenParams:     slices.Clone(cfg.TokenParams),
		refreshParams:   slices.Clone(cfg.RefreshParams),
		maxAge:          configuredMaxAge(cfg.AuthorizeParams),
		timeout:         cfg.Timeout,

		refreshAnswerTimeout: cfg.RefreshResponseTimeout,

		http:         newHTTPClient(cfg.RootCAs),
		codes:        newSlots(),
		pushes:       newSlots(),
		userInfos:    newSlots(),
		revokes:      newSlots(),
		metadataURLs: metadataURLs(cfg.Issuer, cfg.DiscoveryURL),
	}
	if cfg.Scopes == nil && cfg.Issuer != "" {
		c.scopes = []string{openIDScope}
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	if c.refreshAnswerTimeout == 0 {
		c.refreshAnswerTimeout = defaultRefreshAnswerTimeout
	}
	c.static = c.knowsAllEndpoints()
	c.discovery = &cache[metadata]{
		fetch:   c.fetchMetadata,
		timeout: c.timeout,
		pause:   30 * time.Second,
	}
	c.keys = &cache[keySet]{
		fetch:    c.fetchKeys,
		timeout:  c.timeout,
		pause:    time.Second,
		maxStale: maxKeyStaleness,
	}
	return c, nil
}

// OpenID reports whether the scopes hold "openid": a login then ends with a
// verified ID token or not at all.
func (c *Client) OpenID() bool { return slices.Contains(c.scopes, openIDScope) }

// knowsAllEndpoints reports whether the configuration alone is enough to log
// users in, so that the server's metadata is never asked for.
func (c *Client) knowsAllEndpoints() bool {
	has := func(name string) bool { return c.endpoints[name] != "" }
	return c.issuer == "" ||
		has(authorizationEndpoint) && has(tokenEndpoint) && (has(jwksURI) || !c.OpenID())
}

// bounded limits a call to the client's timeout, the fetching of metadata and
// keys included.
func (c *Client) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}
