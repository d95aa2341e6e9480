package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/tlskeys"
)

func newHTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport:     &splitTransport{refreshes: newConnPool(roots, maxRefreshConns), others: newConnPool(roots, maxConns)},
		CheckRedirect: refuseRedirect,
	}
}

// refuseRedirect returns a redirect as the response. A redirect of a request that carries
// credentials is an attack or a mistake. RFC 6749 defines none.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// dialTimeout limits the connecting to one address.
const dialTimeout = 5 * time.Second

// newTransport returns a transport for new connections of the pool.
func (p *connPool) newTransport() *http.Transport {
	idle := time.Duration(p.idle.Load())
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            p.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: p.roots, VerifyConnection: tlskeys.RefuseWeak},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		MaxConnsPerHost:        p.limit,
		// All connections may stay open: after a peak of refreshes, opening new
		// connections would cost more than the refreshes.
		MaxIdleConns:        p.limit,
		MaxIdleConnsPerHost: p.limit,
		IdleConnTimeout:     idle,
		DisableKeepAlives:   idle <= 0,
	}
}

// splitTransport gives refreshes separate connections: slow refreshes must not
// delay codes, keys, metadata or revocations.
type splitTransport struct{ refreshes, others *connPool }

// refreshKey marks the context of a refresh.
type refreshKey struct{}

func (t *splitTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Value(refreshKey{}) != nil {
		return t.refreshes.roundTrip(r)
	}
	return t.others.roundTrip(r)
}

// CloseIdleConnections is called by [http.Client.CloseIdleConnections].
func (t *splitTransport) CloseIdleConnections() {
	t.refreshes.current.Load().CloseIdleConnections()
	t.others.current.Load().CloseIdleConnections()
}

// connPool is a pool of connections to the server. After a request has timed
// out, connPool opens new connections for the next requests: net/http keeps using
// an HTTP/2 connection after its peer is gone, and the operating system takes about
// 15 minutes to notice. Running requests keep their connections: aborted refreshes
// would be repeated, and the server would receive their tokens twice.
//
// It also closes idle connections before the server does. A grant that is sent while
// the server closes the connection gets no response.
type connPool struct {
	roots   *x509.CertPool
	limit   int
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	idle    atomic.Int64 // a time.Duration: how long unused connections stay open
	current atomic.Pointer[http.Transport]
}

func newConnPool(roots *x509.CertPool, limit int) *connPool {
	p := &connPool{roots: roots, limit: limit}
	p.dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	p.idle.Store(int64(idleShare(usualKeepAlive)))
	p.current.Store(p.newTransport())
	return p
}

func (p *connPool) roundTrip(r *http.Request) (*http.Response, error) {
	used := p.current.Load()
	resp, err := used.RoundTrip(r)
	if err != nil && errors.Is(context.Cause(r.Context()), context.DeadlineExceeded) &&
		p.current.CompareAndSwap(used, p.newTransport()) {
		used.CloseIdleConnections()
	}
	if err == nil && resp.ProtoMajor == 1 {
		if announced, ok := keepAliveTimeout(resp.Header); ok {
			p.closeIdleAfter(idleShare(announced))
		}
	}
	return resp, err
}

// closeIdleAfter shortens the time that unused connections stay open. It never makes
// it longer: the pool has connections to several hosts, and the shortest time is safe
// for all of them.
func (p *connPool) closeIdleAfter(d time.Duration) {
	for {
		old := p.idle.Load()
		if int64(d) >= old {
			return
		}
		if p.idle.CompareAndSwap(old, int64(d)) {
			break
		}
	}
	p.current.Swap(p.newTransport()).CloseIdleConnections()
}

// usualKeepAlive is the shortest time after which common servers close an unused
// connection, unless they announce another one.
const usualKeepAlive = 5 * time.Second

// idleShare returns the part of the server's time after which this side closes an
// unused connection. The rest is for a request that is under way.
func idleShare(announced time.Duration) time.Duration { return announced / 4 * 3 }

// keepAliveTimeout reads how long the server keeps an unused connection open (header
// Keep-Alive, RFC 2068 section 19.7.1.1). Of several values the shortest counts.
func keepAliveTimeout(h http.Header) (shortest time.Duration, ok bool) {
	for _, value := range h["Keep-Alive"] {
		for param := range strings.SplitSeq(value, ",") {
			name, text, _ := strings.Cut(param, "=")
			seconds, err := strconv.ParseUint(strings.Trim(text, ` "`), 10, 31)
			if err != nil || !strings.EqualFold(strings.TrimSpace(name), "timeout") {
				continue
			}
			if d := time.Duration(seconds) * time.Second; !ok || d < shortest {
				shortest, ok = d, true
			}
		}
	}
	return shortest, ok
}
