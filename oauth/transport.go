package oauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/tlskeys"
)

// maxBody limits every answer of the server. Compression is off, so that this
// is also the limit of what a small answer can unfold to.
const maxBody = 1 << 20

// How long a fetched document counts as fresh: what its Cache-Control says
// within bounds, or the default.
const (
	defaultFresh = time.Hour
	minFresh     = 5 * time.Minute
	maxFresh     = 24 * time.Hour
)

var errTooLarge = fmt.Errorf("the answer is larger than %d bytes", maxBody)

func newHTTPClient(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &transports{calls: newConns(roots, maxConns), refreshes: newConns(roots, maxRefreshConns)},
		// A redirect of a request that carries credentials is an attack or a
		// mistake, and RFC 6749 knows none: it is returned as it is.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func newTransport(roots *x509.CertPool, conns int) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, VerifyConnection: tlskeys.RefuseWeak},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		MaxConnsPerHost:        conns,
		// As many as are in use when many sessions come back at once: a
		// connection for each refresh costs more than the refresh.
		MaxIdleConns:        conns,
		MaxIdleConnsPerHost: conns,
		// Shorter than the keep-alive of common servers and firewalls: a
		// grant sent into a dead connection is a grant without an answer.
		IdleConnTimeout: 30 * time.Second,
	}
}

// transports gives refreshes connections of their own: refreshes that hang must
// not hold up codes, keys, metadata or revocations.
type transports struct{ calls, refreshes *conns }

// refreshing marks the context of a refresh.
type refreshing struct{}

func (t *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Value(refreshing{}) != nil {
		return t.refreshes.roundTrip(r)
	}
	return t.calls.roundTrip(r)
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] calls.
func (t *transports) CloseIdleConnections() {
	t.calls.current.Load().CloseIdleConnections()
	t.refreshes.current.Load().CloseIdleConnections()
}

// conns are connections to the server. After a request without an answer in time
// the next ones use new connections: net/http goes on using an HTTP/2 connection
// whose other end is gone, and the operating system takes a quarter of an hour to
// notice. Requests under way stay where they are, since breaking them off would have
// their refresh tokens sent twice.
type conns struct {
	roots   *x509.CertPool
	limit   int
	current atomic.Pointer[http.Transport]
}

func newConns(roots *x509.CertPool, limit int) *conns {
	c := &conns{roots: roots, limit: limit}
	c.current.Store(newTransport(roots, limit))
	return c
}

func (c *conns) roundTrip(r *http.Request) (*http.Response, error) {
	used := c.current.Load()
	resp, err := used.RoundTrip(r)
	if err != nil && errors.Is(context.Cause(r.Context()), context.DeadlineExceeded) &&
		c.current.CompareAndSwap(used, newTransport(c.roots, c.limit)) {
		used.CloseIdleConnections()
	}
	return resp, err
}

// promised is how many bytes of an answer are made room for because its header
// says so. Tokens take less.
const promised = 16 << 10

// readBody reads a whole answer, within maxBody.
func readBody(resp *http.Response) ([]byte, error) {
	var body bytes.Buffer
	if n := resp.ContentLength; n > 0 { // as far as it is to be believed before it is here
		body.Grow(int(min(n, promised)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, maxBody+1)); err != nil {
		return nil, err
	}
	if body.Len() > maxBody {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}

// statusError is an answer with another status than 200.
type statusError int

func (e statusError) Error() string {
	if e >= 300 && e < 400 {
		return fmt.Sprintf("HTTP %d: redirects are not followed", int(e))
	}
	return fmt.Sprintf("HTTP %d", int(e))
}

// fetchDocument gets a public document of the server and tells how long it
// stays fresh.
func (c *Client) fetchDocument(ctx context.Context, url string) ([]byte, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, errors.New("the address is not a URL")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, connError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, 0, statusError(resp.StatusCode)
	}
	body, err := readBody(resp)
	if errors.Is(err, errTooLarge) {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, connError(err)
	}
	return body, freshFor(resp.Header), nil
}

// freshFor reads Cache-Control, bounded on both sides: a server can neither
// make us ask all the time nor pin old keys for long.
func freshFor(h http.Header) time.Duration {
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return minFresh
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return defaultFresh
			}
			return min(max(time.Duration(seconds)*time.Second, minFresh), maxFresh)
		}
	}
	return defaultFresh
}

// connError turns an error of net/http into one that is safe to show. Some of
// its errors quote what the server sent (a malformed status line, the debug
// data of a GOAWAY frame), so only kinds that cannot are passed on.
func connError(err error) error {
	for _, plain := range []error{context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(err, plain) {
			return fmt.Errorf("no complete answer: %w", plain)
		}
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return errors.New(clean(e.Error()))
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return errors.New(clean(e.Error()))
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New(e.Msg)
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return errors.New("no answer in time")
	}
	return errors.New("the connection broke, or the answer was not HTTP")
}
