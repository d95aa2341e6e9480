package oauth

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Client is the client of one authorization server. It is safe for concurrent
// use. It needs no closing: it runs goroutines only while it fetches metadata or
// keys, and these end within [Config.Timeout].
type Client struct {
	issuer          string
	endpoints       map[string]string // configured URLs, by metadata name
	clientID        string
	clientSecret    func() (string, error)
	keyFile         *watchedFile[clientKeys]     // nil: none
	assertionFile   *watchedFile[foundAssertion] // nil: none
	assertionType   string
	authMethod      string // empty: chosen by the metadata
	scopes          []string
	audience        string
	resources       []string
	responseMode    string
	authorizeParams []Param
	tokenParams     []Param
	refreshParams   []Param
	maxAge          *int // max_age of authorizeParams, in seconds
	timeout         time.Duration

	idTokenAlgorithm string // empty: chosen by the metadata
	trustedAudiences []string
	userInfoMethod   string // empty: get

	assertionAudience      string
	refreshResponseTimeout time.Duration

	http            *http.Client
	publicHTTP      *http.Client // for URLs in claims, see httpFor
	providers       claimsProviders
	codeSlots       slots
	pushSlots       slots
	userInfoSlots   slots
	sourceSlots     slots
	revocationSlots slots
	skipDiscovery   bool // the configuration names every endpoint needed
	metadataURLs    []string
	// clockDifference is the server's clock minus that of this machine, in nanoseconds,
	// at the last fetch of a document. It is 0 if they agree.
	clockDifference atomic.Int64
	discovery       *cache[metadata]
	keys            *cache[keySet]

	// Each kind of token has a separate budget for fetches of keys.
	loginKeys, refreshKeys, sourceKeys, logoutKeys fetchBudget
}

// New checks the configuration and returns a client. It refuses configurations
// that cannot work or are not safe; its errors name the option as it is written
// in the Caddyfile, and never hold a secret.
//
// New reads the files with credentials, and does not use the network. A Client fetches metadata and keys when a call
// first needs them, and again after a failure.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{
		issuer:          cfg.Issuer,
		endpoints:       cfg.Endpoints.byName(),
		clientID:        cfg.ClientID,
		clientSecret:    cfg.ClientSecret,
		assertionType:   cfg.ClientAssertion.typeURI(),
		authMethod:      cfg.authMethod(),
		scopes:          cfg.RequestedScopes(),
		audience:        cfg.Audience,
		resources:       slices.Clone(cfg.Resources),
		responseMode:    cfg.ResponseMode,
		authorizeParams: slices.Clone(cfg.AuthorizeParams),
		tokenParams:     slices.Clone(cfg.TokenParams),
		refreshParams:   slices.Clone(cfg.RefreshParams),
		maxAge:          configuredMaxAge(cfg.AuthorizeParams),
		timeout:         cmp.Or(cfg.Timeout, defaultTimeout),

		idTokenAlgorithm: cfg.IDTokenAlgorithm,
		trustedAudiences: slices.Clone(cfg.TrustedAudiences),
		userInfoMethod:   cfg.UserInfoMethod,

		assertionAudience:      cfg.AssertionAudience,
		refreshResponseTimeout: cmp.Or(cfg.RefreshResponseTimeout, defaultRefreshResponseTimeout),

		http:            traced(newHTTPClient(cfg.RootCAs), cfg.Trace),
		publicHTTP:      traced(newPublicHTTPClient(cfg.RootCAs, cfg.Issuer), cfg.Trace),
		codeSlots:       newSlots(),
		pushSlots:       newSlots(),
		userInfoSlots:   newSlots(),
		sourceSlots:     newSlots(),
		revocationSlots: newSlots(),
		metadataURLs:    metadataURLs(cfg.Issuer, cfg.DiscoveryURL),
	}
	c.loginKeys.fromServer, c.refreshKeys.fromServer = true, true
	c.skipDiscovery = c.configuresAllEndpoints()
	c.discovery = &cache[metadata]{
		fetch:         c.fetchMetadata,
		timeout:       c.timeout,
		maxEmptyPause: 30 * time.Second,
	}
	c.keys = &cache[keySet]{
		fetch:         c.fetchKeys,
		timeout:       c.timeout,
		maxEmptyPause: time.Second,
		maxStale:      maxKeyStaleness,
	}
	if err := c.loadCredentials(cfg); err != nil {
		return nil, err
	}
	return c, nil
}

// OpenID reports whether the requested scopes contain "openid". If so, every
// login must end with a verified ID token.
func (c *Client) OpenID() bool { return slices.Contains(c.scopes, openIDScope) }

// FormPost reports whether the authorization server is asked to send its answer to
// the callback as a form (Config.ResponseMode).
func (c *Client) FormPost() bool { return c.responseMode == ResponseModeFormPost }

// ConfiguresParam reports whether Config.AuthorizeParams has a parameter.
func (c *Client) ConfiguresParam(name string) bool {
	return slices.ContainsFunc(c.authorizeParams, func(p Param) bool { return p.Name == name })
}

// Issuer returns the configured issuer, or "".
func (c *Client) Issuer() string { return c.issuer }

// HasIssuer reports whether a URL is the configured issuer identifier, byte for byte.
// It reports false without Config.Issuer.
func (c *Client) HasIssuer(iss string) bool { return c.issuer != "" && iss == c.issuer }

// configuresAllEndpoints reports whether users can log in without the server's
// metadata, because the configuration names all the endpoints that this takes.
func (c *Client) configuresAllEndpoints() bool {
	has := func(name string) bool { return c.endpoints[name] != "" }
	return c.issuer == "" ||
		has(authorizationEndpoint) && has(tokenEndpoint) && (has(jwksURI) || !c.OpenID())
}

// withTimeout limits a call to the client's timeout. This includes fetches of
// metadata and keys.
func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}
