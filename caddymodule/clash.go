package caddymodule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// place is where browsers find a handler.
type place struct {
	server *caddyhttp.Server // nil if unknown
	// hosts are those in the address bar: the host of base_url or, without base_url, the
	// hosts of the route. It is nil if they are unknown.
	hosts  hosts
	prefix string // of the paths of the endpoints
	domain string // of the cookie
	// callbackUnrouted says that no request for the callback reaches the handler.
	callbackUnrouted bool
}

// place returns the place of a handler that has found its hosts.
func (h *Handler) place(server *caddyhttp.Server, route hosts, prefix string) place {
	p := place{server: server, hosts: route, prefix: prefix, callbackUnrouted: h.callbackUnrouted}
	if h.baseHost != "" {
		p.hosts = hosts{h.baseHost}
	}
	if h.Cookie != nil && h.Cookie.Domain != "" {
		p.domain = domainPattern(h.Cookie.Domain)
	}
	return p
}

// sameHost reports whether browsers certainly find two handlers on one host. Caddy leads
// a host to the most specific site, so a wildcard and one of its names are different.
// The hosts of a site without a name depend on the server.
func (p place) sameHost(other place) bool {
	return slices.ContainsFunc(p.hosts, func(host string) bool {
		return slices.Contains(other.hosts, host) && (host != "" || p.sameServer(other))
	})
}

func (p place) sameServer(other place) bool { return p.server != nil && p.server == other.server }

// sameEndpoints reports whether one of two handlers on one host would answer the
// endpoints of the other.
func (p place) sameEndpoints(other place) bool {
	return p.sameServer(other) && (strings.HasPrefix(p.prefix+"/", other.prefix+"/") || strings.HasPrefix(other.prefix+"/", p.prefix+"/"))
}

// sameCookie reports whether browsers keep one cookie for two handlers with the same
// cookie name. Cookies ignore ports.
func (p place) sameCookie(other place) bool {
	if p.domain != "" || other.domain != "" {
		return p.domain == other.domain
	}
	return p.sameHost(other)
}

// clash refuses a handler whose login cannot work beside that of another handler: each
// login would replace the cookie of the other, or one handler would get the callbacks of
// the other. It compares the sites of one port: on several ports of one host, a browser may
// well visit one site only, as on a developer's machine.
func (s sharing) clash(other sharing) error {
	if s.sameLogin(other) || !s.place.sameServer(other.place) {
		return nil
	}
	var same []string
	if s.cookie.name == other.cookie.name && s.place.sameCookie(other.place) {
		same = append(same, "the cookie "+s.cookie.name)
	}
	if s.place.sameHost(other.place) && s.place.sameEndpoints(other.place) {
		same = append(same, "the path_prefix "+s.place.prefix)
	}
	if same == nil {
		return nil
	}
	return fmt.Errorf("two oauth_session directives with different logins (%s, and %s) share a host and %s: the browser would sign in again and again. "+
		"Give one of them another cookie { name … } and another path_prefix", other.login(), s.login(), strings.Join(same, " and "))
}

// sameLogin reports whether each of two handlers finds and opens the sessions of the
// other, if they have the same cookie.
func (s sharing) sameLogin(other sharing) bool {
	return s.store == other.store && s.authority == other.authority && s.client == other.client &&
		slices.Contains(other.keys, s.keys[0]) && slices.Contains(s.keys, other.keys[0])
}

// login describes a login for an error.
func (s sharing) login() string {
	return fmt.Sprintf("client_id %s at %s, store %s", s.client, s.authority, s.store)
}
