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

// browser is one person's browser at one site. It keeps cookies as a browser
// does that takes localhost for secure, and all its requests to the site go
// over one connection: so the log line of one precedes the answer to the next.
type browser struct {
	t       *testing.T
	http    *http.Client
	site    string // origin
	cookies map[string]string
	// header is sent to the site besides what a browser sends.
	header http.Header
}

// answer is what came back.
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

// transports has those of all browsers.
var transports struct {
	sync.Mutex
	all []*http.Transport
}

func keepTransport(tr *http.Transport) {
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

// newBrowserFrom connects from a certain loopback address.
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
	keepTransport(transport)
	return &browser{
		t: t, site: site, cookies: map[string]string{}, header: http.Header{},
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// begin opens a page of the site that need not be answered. The returned
// function hangs up and waits until the request is over.
func (b *browser) begin(path string) (hangUp func()) {
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
	over := make(chan struct{})
	go func() {
		defer close(over)
		if resp, err := b.http.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	return func() {
		cancel()
		<-over
	}
}

// send sends one request. target is a path of the site or a URL.
func (b *browser) send(method, target string, header http.Header) answer {
	b.t.Helper()
	ours := strings.HasPrefix(target, "/") || strings.HasPrefix(target, b.site+"/")
	if strings.HasPrefix(target, "/") {
		target = b.site + target
	}
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if ours {
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
	if ours {
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

// do tries again when the connection was cut before an answer began: that befalls
// connections which wait at the old configuration's socket during a reload, and
// is what browsers do too.
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

// open types a URL and does not follow redirects.
func (b *browser) open(target string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, target, navigation)
}

// visit types a URL and follows redirects.
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
	b.t.Fatalf("redirected for ever: %s", a.url)
	return a
}

// login visits a page through a login, and demands that it comes.
func (b *browser) login(target string) answer {
	b.t.Helper()
	a := b.visit(target)
	if a.status != http.StatusOK {
		b.t.Fatalf("login at %s ended at %s with %d:\n%s", target, a.url, a.status, a.body)
	}
	return a
}

// fetch is a script of the site that asks for something.
func (b *browser) fetch(target string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, target, http.Header{
		"Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}, "Sec-Fetch-Site": {"same-origin"}, "Accept": {"*/*"},
	})
}

// callback begins a login and returns the URL of the callback with its code,
// which has not been asked for yet.
func (b *browser) callback(target string) string {
	b.t.Helper()
	a := b.open(target)
	if a.status != http.StatusFound {
		b.t.Fatalf("GET %s: status %d, want a redirect to the login:\n%s", target, a.status, a.body)
	}
	a = b.open(a.header.Get("Location"))
	location := a.header.Get("Location")
	if !strings.Contains(location, "code=") {
		b.t.Fatalf("the authorization server answered %d, Location %q:\n%s", a.status, location, a.body)
	}
	return location
}

// redirectURI is what a redirect to the login asks for.
func (a answer) redirectURI(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status != http.StatusFound {
		t.Fatalf("status %d, Location %q: not a redirect to the login:\n%s", a.status, a.header.Get("Location"), a.body)
	}
	return u.Query().Get("redirect_uri")
}

// echo is the request that reached the app and was answered by it.
func (a answer) echo(t *testing.T) echo.Request {
	t.Helper()
	var r echo.Request
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || r.Line == "" {
		t.Fatalf("GET %s: status %d, not an answer of the app:\n%s", a.url, a.status, a.body)
	}
	return r
}
