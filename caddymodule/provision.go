package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Provision sets up the handler. It opens no connection and no store, and writes no file,
// so `caddy validate` can run beside a running Caddy and as another user.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	// The app opens the stores when the configuration starts.
	module, err := ctx.App(appName)
	if err != nil {
		return err
	}
	app := module.(*App)
	h.app = app
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	text := h.text()
	app.nesting.search(server)
	routeHosts := h.routeHosts(server, app)
	if h.hosts = routeHosts; routeHosts == nil {
		h.hosts = anyHost
	}
	if err := h.loadModules(ctx); err != nil {
		return err
	}
	e := newExpander()
	h.setBaseURL(e)
	label := siteLabel(h.baseHost, routeHosts, h.PathPrefix)
	h.logger = h.logger.With(zap.String("site", label))
	h.auditLogger, h.label, h.ctx, h.metrics = h.logger.Named(auditName), label, ctx, siteMetrics{label}
	clientConfig := h.clientConfig(e)
	var certificates string
	if len(h.TrustedCA) > 0 {
		clientConfig.RootCAs, certificates = e.certificates("trusted_ca", e.files("trusted_ca", h.TrustedCA))
	}
	handlerConfig := h.handlerConfig(e)
	keys := h.keyTexts(e)
	if err := cmp.Or(e.err, h.checkTimes()); err != nil {
		return err
	}
	client, err := h.pooled.client(clientConfig, h.ClientSecret, certificates)
	if err != nil {
		return err
	}
	if err := h.watchCredentials(client, app.keyTasks); err != nil {
		return err
	}
	ring, err := h.keyRing(keys, app.key)
	if err != nil {
		return err
	}
	use := sharing{
		store: h.store.StoreID(), authority: cmp.Or(clientConfig.Issuer, clientConfig.Endpoints.Token), client: clientConfig.ClientID,
		site: siteName(handlerConfig.Cookie), hosts: h.hosts, asked: askedFor(clientConfig), keys: ring.IDs(),
		responseMode: cmp.Or(clientConfig.ResponseMode, oauth.ResponseModeQuery),
	}
	handlerConfig.Client = client
	if handlerConfig.Keeper, err = h.newKeeper(app, use, client, ring, keys); err != nil {
		return err
	}
	if h.handler, err = handler.New(handlerConfig); err != nil {
		return err
	}
	use.cookie = h.cookieUse(h.handler.Cookie.Name)
	use.place = h.place(server, routeHosts, h.handler.PathPrefix)
	if err := cmp.Or(app.share(use), app.nesting.provisioned(text, use)); err != nil {
		return err
	}
	h.cookieInUse, h.use = use.cookie, use
	cookieNames.add(use.cookie)
	vault := h.pooled.vaults[0]
	origins := h.publicOrigins(server, routeHosts)
	h.served = servedSites.add(servedSite{
		label: label, use: use, keeper: handlerConfig.Keeper, vault: vault, client: client, module: h.store, handler: h.handler, origins: origins,
		app:   app,
		audit: ctx.Logger().Named(auditName),
	})
	app.preflight.add(h, vault, client)
	app.preflight.sites = append(app.preflight.sites, func() { h.introduce(origins, ring.IDs()) })
	h.metrics.begin(ring.IDs())
	return registerMetrics(ctx)
}

// setBaseURL expands base_url and adds its host to the handler's hosts.
func (h *Handler) setBaseURL(e *expander) {
	h.baseURL = strings.TrimSuffix(e.text("base_url", h.BaseURL), "/")
	if h.baseURL == "" {
		return
	}
	if err := handler.CheckOrigin(h.baseURL); err != nil {
		e.fail(fmt.Errorf("base_url: %w", err))
		return
	}
	h.baseURL, _ = handler.CanonicalOrigin(h.baseURL) // CheckOrigin has accepted it
	h.baseHost = urlHost(h.baseURL)
	h.hosts = h.hosts.add(h.baseHost)
}

// newKeeper returns the keeper of the sessions, with its store and keys.
func (h *Handler) newKeeper(app *App, use sharing, client *oauth.Client, ring *seal.KeyRing, keys []string) (*keeper.Keeper, error) {
	vault, err := h.pooled.vault(h.store)
	if err != nil {
		return nil, err
	}
	app.use(vault)
	site := seal.NewSite(ring, use.authority, use.client, use.site)
	if h.ownKey != nil {
		h.ownKey.use(site)
	}
	if vault.store.shared {
		app.keyTasks.add(seal.Share(lazySharedStore{vault.store}, site, keyObserver(h.logger, h.metrics)))
	}
	if len(h.Key) > 0 {
		app.keyTasks.add(newKeyReloader(h.Key, keys, site, h.logger).run)
	}
	return keeper.New(keeper.Config{
		Vault: vault.Vault, Site: site, Refresher: handler.Refresher{Client: client, UserInfo: h.UserInfo != "", Observe: h.metrics.refreshRequest}, Server: use.authority,
		IdleTimeout: time.Duration(h.IdleTimeout), MaxLifetime: time.Duration(h.MaxLifetime),
		RefreshTimeout: time.Duration(h.RefreshTimeout), SessionLimit: h.SessionLimit,
		Observe: h.observer(),
	})
}

// observer logs, counts, audits and emits the events of a keeper.
func (h *Handler) observer() func(keeper.Event) {
	log := handler.NewObserver(h.logger)
	audit := handler.NewAuditObserver(func(e handler.AuditEvent) { h.audit(nil, e) })
	return func(e keeper.Event) {
		h.metrics.event(e)
		log(e)
		audit(e)
		switch {
		case e.Kind == keeper.EventRefreshed:
			setUp(issuerUp, h.use.authority, true)
			h.app.events.refreshed(h, e)
		case e.Kind == keeper.EventRefreshFailed && serverIsDown[e.Outcome]:
			setUp(issuerUp, h.use.authority, false)
		}
	}
}

// siteName separates sites that share an authorization server and a client: a session of
// one cookie opens with no other cookie. It is the name of the cookie, or "" for the default
// name, whether or not the configuration writes it out.
func siteName(c handler.Cookie) string {
	if c.Name == c.DefaultName() {
		return ""
	}
	return c.Name
}

func (h *Handler) loadModules(ctx caddy.Context) error {
	h.store = &BoltStore{}
	if h.StoreRaw == nil {
		if err := h.store.(*BoltStore).Provision(ctx); err != nil {
			return err
		}
	} else {
		mod, err := ctx.LoadModule(h, "StoreRaw")
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		store, ok := mod.(StoreModule)
		if !ok {
			return fmt.Errorf("store: module %T is not a session store", mod)
		}
		h.store = store
	}
	for i := range h.RefreshIfOlder {
		limit := &h.RefreshIfOlder[i]
		if err := loadMatchers(ctx, limit, "MatchRaw", &limit.matchers); err != nil {
			return fmt.Errorf("refresh_if_older: %w", err)
		}
	}
	if h.MatchRaw != nil {
		if err := loadMatchers(ctx, h, "MatchRaw", &h.match); err != nil {
			return fmt.Errorf("match: %w", err)
		}
	}
	if h.OptionalRaw != nil {
		if err := loadMatchers(ctx, h, "OptionalRaw", &h.optional); err != nil {
			return fmt.Errorf("optional: %w", err)
		}
	}
	if h.IdleIgnoreRaw != nil {
		if err := loadMatchers(ctx, h, "IdleIgnoreRaw", &h.idleIgnore); err != nil {
			return fmt.Errorf("idle_ignore: %w", err)
		}
	}
	return nil
}

// loadMatchers loads the matcher modules of a field.
func loadMatchers(ctx caddy.Context, of any, field string, to *caddyhttp.MatcherSets) error {
	modules, err := ctx.LoadModule(of, field)
	if err != nil {
		return err
	}
	return to.FromInterface(modules)
}

// checkTimes refuses durations below a second, as the Caddyfile does: in JSON, a number
// counts nanoseconds. It also refuses a negative limit. Its errors name the options; those
// of keeper.New name the fields of its Config.
func (h *Handler) checkTimes() error {
	for _, t := range []struct {
		option string
		value  caddy.Duration
	}{
		{"idle_timeout", h.IdleTimeout},
		{"max_lifetime", h.MaxLifetime},
		{"refresh_timeout", h.RefreshTimeout},
	} {
		if t.value != 0 && time.Duration(t.value) < time.Second {
			return fmt.Errorf("%s: %v is less than a second; write it with its unit, such as \"30m\", because a number counts nanoseconds", t.option, time.Duration(t.value))
		}
	}
	if h.SessionLimit < 0 {
		return errors.New("session_limit: must not be negative")
	}
	return nil
}

// clientConfig returns the client's configuration with expanded placeholders. Errors go to
// e.
func (h *Handler) clientConfig(e *expander) oauth.Config {
	c := oauth.Config{
		Issuer:       e.text("issuer", h.Issuer),
		DiscoveryURL: e.text("discovery_url", h.DiscoveryURL),
		Endpoints: oauth.Endpoints{
			Authorization:              e.text("authorization_endpoint", h.AuthorizationEndpoint),
			Token:                      e.text("token_endpoint", h.TokenEndpoint),
			UserInfo:                   e.text("userinfo_endpoint", h.UserinfoEndpoint),
			JWKS:                       e.text("jwks_uri", h.JWKSURI),
			Revocation:                 e.text("revocation_endpoint", h.RevocationEndpoint),
			EndSession:                 e.text("end_session_endpoint", h.EndSessionEndpoint),
			PushedAuthorizationRequest: e.text("pushed_authorization_request_endpoint", h.PAREndpoint),
		},
		ClientID:        e.text("client_id", h.ClientID),
		ClientSecret:    e.secret("client_secret", h.ClientSecret, h.logger),
		ClientKeyFile:   e.file("client_key", h.ClientKey),
		AuthMethod:      h.TokenEndpointAuthMethod,
		Scopes:          e.texts("scope", h.Scope),
		Audience:        e.text("audience", h.Audience),
		Resources:       e.texts("resource", h.Resource),
		ResponseMode:    e.text("response_mode", h.ResponseMode),
		AuthorizeParams: e.params("authorize_param", h.AuthorizeParam),
		TokenParams:     e.params("token_param", h.TokenParam),
		RefreshParams:   e.params("refresh_param", h.RefreshParam),

		Trace:             traceServerCall,
		IDTokenAlgorithm:  e.text("id_token_signed_response_alg", h.IDTokenSignedResponseAlg),
		UserInfoMethod:    h.UserInfo,
		TrustedAudiences:  e.texts("trusted_audiences", h.TrustedAudiences),
		AssertionAudience: h.AssertionAudience,
	}
	if a := h.ClientAssertion; a != nil {
		c.ClientAssertion = oauth.ClientAssertion{File: e.file("client_assertion", a.File), Type: a.Type}
		if a.File == "" {
			e.fail(errors.New("client_assertion: the file is missing"))
		}
	}
	return c
}

func (h *Handler) handlerConfig(e *expander) handler.Config {
	c := handler.Config{
		Logger:             h.logger,
		Origin:             h.origin,
		OriginalURL:        originalURL,
		PathPrefix:         h.PathPrefix,
		UserInfo:           h.UserInfo != "",
		LoginParams:        e.texts("login_param", h.LoginParam),
		TrustedOrigins:     e.texts("trusted_origins", h.TrustedOrigins),
		PostLogoutRedirect: e.text("post_logout_redirect", h.PostLogoutRedirect),
		SetUser:            setUser,
		RelayContext:       relayContext,
		KeepOutOfLog:       keepOutOfAccessLog,
		OtherCookies:       h.otherCookies,
		Fail:               fail,
		ErrorRedirect:      errorRedirect,
		Meter:              h.metrics,
		Audit:              h.audit,
		Note:               note,
		RequestID:          requestID,
	}
	if h.Cookie != nil {
		c.Cookie = handler.Cookie{Name: h.Cookie.Name, Domain: h.Cookie.Domain, SameSite: h.Cookie.SameSite, Partitioned: h.Cookie.Partitioned}
	}
	for _, req := range h.Require {
		c.Require = append(c.Require, handler.Requirement{Claim: req.Claim, Values: e.texts("require", req.Values)})
	}
	h.setMatchers(&c)
	c.FrontchannelLogout = h.FrontchannelLogout
	c.RetryUnauthorized = h.RetryUnauthorized
	var ok bool
	if c.CloseExpiredStreams, ok = closesStreams[h.StreamTokenExpiry]; !ok {
		e.fail(fmt.Errorf("stream_token_expiry %q: give keep or close", h.StreamTokenExpiry))
	}
	if c.OmitIDTokenHint, ok = omitsIDTokenHint[h.IDTokenHint]; !ok {
		e.fail(fmt.Errorf("id_token_hint %q: give on or off", h.IDTokenHint))
	}
	if c.Authorization, ok = authorizationPolicies[h.Authorization]; !ok {
		e.fail(fmt.Errorf("authorization %q: give replace, keep or reject", h.Authorization))
	}
	if h.Header != nil {
		h.header = newHeaderTemplate(h.Header.Value)
		if h.Header.Name == "" || !strings.Contains(h.Header.Value, tokenPlaceholder) {
			e.fail(fmt.Errorf("header: give a name and a value with %s in it", tokenPlaceholder))
		}
		c.HeaderName, c.HeaderValue = h.Header.Name, h.header.value
	}
	return c
}

// setMatchers sets the functions that select requests. The raw matchers are nil after
// loading.
func (h *Handler) setMatchers(c *handler.Config) {
	if h.match != nil {
		// A request on which a matcher fails needs a session.
		c.Protects = matches(h.match, true)
		onSomePath, _ := splitByPath(h.match)
		c.MayProtect = matches(onSomePath, true)
	}
	if h.optional != nil {
		c.Optional = matches(h.optional, false)
		if _, onEveryPath := splitByPath(h.optional); onEveryPath != nil {
			c.AlwaysOptional = matches(onEveryPath, false)
		}
	}
	if h.idleIgnore != nil {
		// A request on which a matcher fails counts as use, as without the option.
		c.IdleIgnore = matches(h.idleIgnore, false)
	}
	for _, limit := range h.RefreshIfOlder {
		c.RefreshIfOlder = append(c.RefreshIfOlder, handler.AgeLimit{
			Age: time.Duration(limit.Age),
			// A request on which a matcher fails is treated as sensitive.
			Match: matches(limit.matchers, true),
		})
	}
}

// matches returns a function that reports whether one of the matcher sets matches a
// request. It returns failed if a matcher fails.
func matches(sets caddyhttp.MatcherSets, failed bool) func(*http.Request) bool {
	return func(r *http.Request) bool {
		match, err := sets.AnyMatchWithError(r)
		if err != nil {
			return failed
		}
		return match
	}
}

var closesStreams = map[string]bool{"": false, "keep": false, "close": true}

var omitsIDTokenHint = map[string]bool{"": false, "on": false, "off": true}

var authorizationPolicies = map[string]handler.AuthorizationPolicy{
	"":        handler.ReplaceAuthorization,
	"replace": handler.ReplaceAuthorization,
	"keep":    handler.KeepAuthorization,
	"reject":  handler.RejectAuthorization,
}
