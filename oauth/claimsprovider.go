package oauth

import (
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
)

// maxClaimsProviders limits the issuers whose keys are kept for the claims they sign.
const maxClaimsProviders = 16

// maxIssuer is the longest accepted issuer of claims, in bytes. Errors repeat it.
const maxIssuer = 255

// claimsProviders are the issuers of claims other than the server, by their identifier.
// Each is a client, which fetches and keeps the issuer's metadata and keys.
type claimsProviders struct {
	mu    sync.Mutex
	known map[string]*Client
}

// claimsProvider returns the client with the keys of an issuer: c for the server itself.
func (c *Client) claimsProvider(issuer string) (*Client, error) {
	if issuer == c.issuer {
		return c, nil
	}
	if len(issuer) > maxIssuer {
		return nil, errors.New("is too long")
	}
	if err := c.checkSourceURL(issuer); err != nil {
		return nil, err
	}
	c.providers.mu.Lock()
	defer c.providers.mu.Unlock()
	if p := c.providers.known[issuer]; p != nil {
		return p, nil
	}
	p, err := New(Config{Issuer: issuer, ClientID: c.clientID, Timeout: c.timeout})
	if err != nil {
		return nil, errors.New("is not an issuer")
	}
	p.http = c.httpFor(issuer)
	if c.providers.known == nil || len(c.providers.known) >= maxClaimsProviders {
		c.providers.known = make(map[string]*Client)
	}
	c.providers.known[issuer] = p
	return p, nil
}

// checkSourceURL accepts the URLs that the server may name for claims. As with
// endpoints, a server with https must not direct requests to plain http.
func (c *Client) checkSourceURL(raw string) error {
	if err := checkURL(raw); err != nil {
		return err
	}
	if strings.HasPrefix(c.issuer, "https:") && !strings.HasPrefix(strings.ToLower(raw), "https:") {
		return errors.New("must be https, as the issuer is")
	}
	return nil
}

// httpFor returns the HTTP client for a URL that the server has named: that of the
// server for the server's own hosts, and otherwise one that connects to public addresses
// only. The server must not direct requests to other services of the operator.
func (c *Client) httpFor(raw string) *http.Client {
	host := hostPort(raw)
	if host != "" && host == hostPort(c.issuer) {
		return c.http
	}
	for _, u := range c.endpoints {
		if u != "" && host == hostPort(u) {
			return c.http
		}
	}
	if s := c.discovery.peek(); s != nil {
		for _, u := range s.value.endpoints {
			if host == hostPort(u) {
				return c.http
			}
		}
	}
	return c.publicHTTP
}

// hostPort returns the host of a URL in lower case, with its port.
func hostPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[strings.ToLower(u.Scheme)]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// maxPublicConns limits the connections to each host that is not the server's.
const maxPublicConns = 8

// newPublicHTTPClient returns a client that connects to public addresses only, whatever
// a name resolves to. It keeps no connections. If the server itself is at a loopback
// address, as in development, loopback addresses are allowed, too.
func newPublicHTTPClient(roots *x509.CertPool, issuer string) *http.Client {
	u, err := url.Parse(issuer)
	loopback := err == nil && isLoopback(u.Hostname())
	pool := newConnPool(roots, maxPublicConns)
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil || !isPublic(addr.Addr(), loopback) {
			return errors.New("the address is not public")
		}
		return nil
	}}
	pool.dial = dialer.DialContext
	pool.idle.Store(0)
	pool.current.Store(pool.newTransport())
	return &http.Client{Transport: &splitTransport{refreshes: pool, others: pool}, CheckRedirect: refuseRedirect}
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

// notPublic are address ranges that IsGlobalUnicast accepts and that do not lead to
// public hosts, or that hide an IPv4 address (RFC 6890).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

func isPublic(addr netip.Addr, loopback bool) bool {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() {
		return loopback
	}
	for _, p := range notPublic {
		if p.Contains(addr) {
			return false
		}
	}
	return addr.IsGlobalUnicast() && !addr.IsPrivate()
}
