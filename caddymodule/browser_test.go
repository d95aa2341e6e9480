package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// browser is a user's browser at one site. It keeps cookies as a browser that treats
// localhost as secure. All its requests to the site use one connection, so the log line
// of a request precedes the response to the next.
type browser struct {
	t       *testing.T
	http    *http.Client
	site    string // origin
	cookies map[string]string
	header  http.Header // additional headers of requests to the site
}

// answer is a response.
type answer struct {
	status int
	header http.Header
	body   string
	url    string
}

func newBrowser(t *testing.T, site string) *browser {
	t.Helper()
	return newBrowserFrom(t, site, "127.0.0.1")
}

// transports has the transports of all browsers.
var transports struct {
	sync.Mutex
	all []*http.Transport
}

func registerTransport(tr *http.Transport) {
	transports.Lock()
	defer transports.Unlock()
	transports.all = append(transports.all, tr)
}

// closeIdleConnections closes the connections that no request uses.
func closeIdleConnections() {
	transports.Lock()
	defer transports.Unlock()
	for _, tr := range transports.all {
		tr.CloseIdleConnections()
	}
}

// newBrowserFrom returns a browser that connects from a loopback address.
func newBrowserFrom(t *testing.T, site, from string) *browser {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		MaxConnsPerHost: 1,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	registerTransport(transport)
	return &browser{
		t: t, site: site, cookies: map[string]string{}, header: http.Header{},
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// openInBackground opens a page without waiting for the response. The returned function
// cancels the request and waits for its end.
func (b *browser) openInBackground(path string) (hangUp func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.site+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for name, values := range navigation {
		req.Header[name] = values
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := b.http.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// send sends a request. The target is a path of the site or a URL.
func (b *browser) send(method, target string, header http.Header) answer {
	b.t.Helper()
	sameSite := strings.HasPrefix(target, "/") || strings.HasPrefix(target, b.site+"/")
	if strings.HasPrefix(target, "/") {
		target = b.site + target
	}
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if sameSite {
		for name, value := range b.cookies {
			req.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		for name, values := range b.header {
			req.Header[name] = values
		}
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := b.do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if sameSite {
		for _, c := range resp.Cookies() {
			if c.MaxAge < 0 {
				delete(b.cookies, c.Name)
			} else {
				b.cookies[c.Name] = c.Value
			}
		}
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: string(body), url: target}
}

// do retries, as browsers do, when the connection ends before a response. A reload ends
// connections that wait at the socket of the old configuration.
func (b *browser) do(req *http.Request) (resp *http.Response, err error) {
	for range 10 {
		resp, err = b.http.Do(req)
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			break
		}
	}
	return resp, err
}

var navigation = http.Header{
	"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Accept": {"text/html"},
}

// open navigates to a URL and does not follow redirects.
func (b *browser) open(target string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, target, navigation)
}

// visit navigates to a URL and follows up to 10 redirects.
func (b *browser) visit(target string) answer {
	b.t.Helper()
	a := b.open(target)
	for range 10 {
		location := a.header.Get("Location")
		if location == "" {
			return a
		}
		base, err := url.Parse(a.url)
		if err != nil {
			b.t.Fatal(err)
		}
		next, err := base.Parse(location)
		if err != nil {
			b.t.Fatal(err)
		}
		a = b.open(next.String())
	}
	b.t.Fatalf("got more than 10 redirects, the last to %s", a.url)
	return a
}

// login visits a page through a login, and fails the test unless the page is shown.
func (b *browser) login(target string) answer {
	b.t.Helper()
	a := b.visit(target)
	if a.status != http.StatusOK {
		b.t.Fatalf("login at %s: got status %d at %s, want 200:\n%s", target, a.status, a.url, a.body)
	}
	return a
}

// fetch sends a request as a script of the site does.
func (b *browser) fetch(target string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, target, http.Header{
		"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}, "Sec-Fetch-Site": {"same-origin"}, "Accept": {"*/*"},
	})
}

// startLogin begins a login and returns the URL of the callback with its code. It does
// not open that URL.
func (b *browser) startLogin(target string) string {
	b.t.Helper()
	a := b.open(target)
	if a.status != http.StatusFound {
		b.t.Fatalf("GET %s: got status %d, want a redirect to the login:\n%s", target, a.status, a.body)
	}
	a = b.open(a.header.Get("Location"))
	location := a.header.Get("Location")
	if !strings.Contains(location, "code=") {
		b.t.Fatalf("got status %d and Location %q of the authorization server, want a code:\n%s", a.status, location, a.body)
	}
	return location
}

// redirectURI returns the redirect_uri in a redirect to the login.
func (a answer) redirectURI(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status != http.StatusFound {
		t.Fatalf("got status %d and Location %q, want a redirect to the login:\n%s", a.status, a.header.Get("Location"), a.body)
	}
	return u.Query().Get("redirect_uri")
}

// echo returns the request as the app received it.
func (a answer) echo(t *testing.T) echo.Request {
	t.Helper()
	var r echo.Request
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || r.Line == "" {
		t.Fatalf("GET %s: got status %d, want a response of the app:\n%s", a.url, a.status, a.body)
	}
	return r
}
