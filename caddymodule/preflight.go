package caddymodule

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// preflight tells an operator what will not work before the first visitor finds it. It has
// the monitors of a configuration's stores and authorization servers, and the line with
// which each site introduces itself.
type preflight struct {
	stores  map[*pooledVault]*monitor
	servers map[*oauth.Client]*monitor
	sites   []func()
	// slots bounds the servers that are asked at the same time: hundreds of sites may have
	// one server, and a client each.
	slots  chan struct{}
	ctx    context.Context //nolint:containedctx // ends with the configuration
	cancel context.CancelFunc
}

func newPreflight() *preflight {
	p := &preflight{stores: map[*pooledVault]*monitor{}, servers: map[*oauth.Client]*monitor{}, slots: make(chan struct{}, maxServerChecks)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// add registers a site with its store and its client. Sites that share one share its
// monitor.
func (p *preflight) add(h *Handler, v *pooledVault, client *oauth.Client) {
	logger, authority := h.ctx.Logger(), h.use.authority
	store := p.stores[v]
	if store == nil {
		store = newMonitor(v.findings, logger.With(zap.String("store", storeName(v.name))), storeTexts)
		store.observe = func(up bool) { setUp(storeUp, storeName(v.name), up) }
		p.stores[v] = store
	}
	server := p.servers[client]
	if server == nil {
		check := func(ctx context.Context) []finding { return serverFindings(ctx, client) }
		server = newMonitor(check, logger.With(zap.String("issuer", authority)), serverTexts)
		server.slots = p.slots
		server.observe = func(up bool) { setUp(issuerUp, authority, up) }
		p.servers[client] = server
	}
	store.sites, server.sites = append(store.sites, h.label), append(server.sites, h.label)
}

// start logs the sites' lines and starts the monitors.
func (p *preflight) start() {
	for _, introduce := range p.sites {
		introduce()
	}
	storeUp.Reset()
	issuerUp.Reset()
	for v, m := range p.stores {
		failed := m.failed
		v.store.failed.Store(&failed)
		go m.run(p.ctx)
	}
	for _, m := range p.servers {
		go m.run(p.ctx)
	}
}

// stop ends the monitors.
func (p *preflight) stop() { p.cancel() }

// storeName returns the ID of a store as operators know it, without the hash of its
// settings.
func storeName(id string) string {
	name, _, _ := strings.Cut(id, "#")
	return name
}

// maxServerChecks bounds the checks of authorization servers that run at the same time.
const maxServerChecks = 16

// maxIntroducedURLs bounds the URLs of each kind in the line of a site.
const maxIntroducedURLs = 10

// introduce logs who the site is for its authorization server. Its URLs are those to
// register there.
func (h *Handler) introduce(origins, keyIDs []string) {
	var callbacks, logouts, backchannel, frontchannel []string
	for _, origin := range origins {
		m := h.handler.ClientMetadata(origin)
		callbacks = append(callbacks, m.RedirectURIs...)
		logouts = append(logouts, m.PostLogoutRedirectURIs...)
		backchannel = appendUnlessEmpty(backchannel, m.BackchannelLogoutURI)
		frontchannel = appendUnlessEmpty(frontchannel, m.FrontchannelLogoutURI)
	}
	fields := []zap.Field{
		zap.String("issuer", h.use.authority), zap.String("client_id", h.use.client), zap.Strings("redirect_uris", callbacks),
	}
	for _, urls := range []struct {
		name   string
		values []string
	}{{"post_logout_redirect_uris", logouts}, {"backchannel_logout_uris", backchannel}, {"frontchannel_logout_uris", frontchannel}} {
		if len(urls.values) > 0 {
			fields = append(fields, zap.Strings(urls.name, urls.values))
		}
	}
	fields = append(fields, zap.String("store", storeName(h.use.store)), zap.Strings("key_ids", keyIDs))
	h.logger.Info("a site needs logins: these URLs must be registered at its authorization server", fields...)
}

func appendUnlessEmpty(list []string, value string) []string {
	if value == "" {
		return list
	}
	return append(list, value)
}

// publicOrigins returns the origins at which browsers probably reach the site: that of
// base_url, or those of its hosts. A site on plain http that is not on a loopback host
// works behind a proxy only, whose scheme is https and whose port is not known here.
func (h *Handler) publicOrigins(server *caddyhttp.Server, routes hosts) (origins []string) {
	if h.baseURL != "" {
		return []string{h.baseURL}
	}
	if len(routes) == 0 {
		routes = anyHost
	}
	var port string
	tls := true
	if server != nil {
		port, tls = listenPort(server.Listen), len(server.TLSConnPolicies) > 0
	}
	for _, host := range routes[:min(len(routes), maxIntroducedURLs)] {
		if host == "" || strings.HasPrefix(host, ".") {
			host = "<host>"
		}
		switch {
		case tls:
			origins = append(origins, "https://"+withPort(host, port, "443"))
		case isLoopbackHost(host):
			origins = append(origins, "http://"+withPort(host, port, "80"))
		default:
			origins = append(origins, "https://"+withPort(host, "", ""))
		}
	}
	return origins
}

// listenPort returns the port of the first listener, or "".
func listenPort(listen []string) string {
	if len(listen) == 0 {
		return ""
	}
	address, err := caddy.ParseNetworkAddress(listen[0])
	if err != nil || address.StartPort == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(address.StartPort), 10)
}

// withPort returns the host and port of an origin. The default port is left out.
func withPort(host, port, standard string) string {
	if port == standard || port == "" {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return net.JoinHostPort(host, port)
}

func isLoopbackHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}
