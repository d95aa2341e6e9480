package security

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// isSite reports whether the Caddy under test serves a host.
func isSite(host string) bool {
	return host == siteName || strings.HasSuffix(host, "."+siteName) || host == "other.test"
}

// newTransport connects to one instance under the name of the site. The host evil.test
// leads to the attacker's server, on every port.
func (w *world) newTransport(in *instance, http2 bool) http.RoundTripper {
	var dialer net.Dialer
	tr := &http.Transport{
		MaxIdleConnsPerHost: 64, DisableCompression: true, ForceAttemptHTTP2: http2,
		TLSClientConfig: &tls.Config{RootCAs: w.authority, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			switch {
			case err != nil:
				return nil, err
			case host == "evil.test" || strings.HasSuffix(host, ".evil.test"):
				addr = w.attacker.addr
			case addr == w.host:
				addr = in.addr
			case isSite(host):
				addr = net.JoinHostPort("127.0.0.1", port)
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}
	w.mu.Lock()
	w.transports = append(w.transports, tr)
	w.mu.Unlock()
	return &scanningTransport{w, tr}
}

// A browser is one browser profile: its cookies and its connections.
type browser struct {
	*client.Client
	w *world
}

// browser returns a browser without cookies, connected to the first instance.
func (w *world) browser() *browser { return w.browserAt(0) }

// browserAt returns a browser without cookies, connected to instance i.
func (w *world) browserAt(i int) *browser { return w.newBrowser(w.instances[i], false) }

// browser2 returns a browser that uses HTTP/2.
func (w *world) browser2() *browser { return w.newBrowser(w.instances[0], true) }

func (w *world) newBrowser(in *instance, http2 bool) *browser {
	b := &browser{Client: client.New("", ""), w: w}
	b.use(in, http2)
	return b
}

func (b *browser) use(in *instance, http2 bool) {
	host := b.w.host
	b.Through(b.w.newTransport(in, http2), host, func() string { return host })
}

// at returns a browser with the same cookies, connected to instance i.
func (b *browser) at(i int) *browser {
	twin := &browser{Client: b.Twin(), w: b.w}
	twin.use(b.w.instances[i], false)
	return twin
}

// nav opens a path or a whole URL in the browser's window. It does not follow redirects.
func (b *browser) nav(t testing.TB, path string) *client.Response {
	t.Helper()
	resp, err := b.Navigate(t.Context(), b.absolute(path))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// xhr sends a request as a script of the site does.
func (b *browser) xhr(t testing.TB, method, path string) *client.Response {
	t.Helper()
	resp, err := b.Fetch(t.Context(), method, b.absolute(path), "")
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// send sends the browser's cookies and the given header lines ("Name: value"), and no
// other header. Host cannot be set: use raw for that.
func (b *browser) send(t testing.TB, method, path, body string, lines ...string) *client.Response {
	t.Helper()
	resp, err := b.trySend(t.Context(), method, path, body, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (b *browser) trySend(ctx context.Context, method, path, body string, lines ...string) (*client.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.absolute(path), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	return b.Do(req)
}

// navigationHeaders are the header lines of a navigation in the browser's window.
var navigationHeaders = []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none", "Accept: text/html"}

// scriptHeaders are the header lines of a script's request.
var scriptHeaders = []string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin", "Accept: application/json"}

func (b *browser) absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return b.w.site + path
	}
	return path
}

// login logs in by opening a path. It requires that the browser ends on this path and that
// the app received an access token.
func (b *browser) login(t testing.TB, path string) *client.Response {
	t.Helper()
	page, err := b.tryLogin(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// loginAs is login with a given user.
func (b *browser) loginAs(t testing.TB, user, path string) *client.Response {
	t.Helper()
	q := url.Values{"login_hint": {user}, "return_to": {path}}
	page, err := b.Visit(t.Context(), b.w.site+login+"?"+q.Encode())
	if err == nil {
		err = b.checkLogin(page, path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func (b *browser) tryLogin(ctx context.Context, path string) (*client.Response, error) {
	page, err := b.Visit(ctx, b.w.site+path)
	if err != nil {
		return nil, fmt.Errorf("logging in: %w", err)
	}
	return page, b.checkLogin(page, path)
}

func (b *browser) checkLogin(page *client.Response, path string) error {
	if page.Status != http.StatusOK || page.URL.String() != b.w.site+path {
		return fmt.Errorf("the login for %s ended with %v", path, page)
	}
	seen, ok := appAnswer(page)
	if !ok || len(seen.Values("Authorization")) != 1 {
		return fmt.Errorf("after the login for %s the app got no access token: %v", path, page)
	}
	return nil
}

// start begins a login and returns the URL of the authorization request.
func (b *browser) start(t testing.TB, path string) *url.URL {
	t.Helper()
	resp := b.nav(t, path)
	to := resp.Location()
	if resp.Status != http.StatusFound || !b.w.isAuthorization(to) {
		t.Fatalf("%s: got %v to %v, want the start of a login", path, resp, to)
	}
	return to
}

// approve signs in at the authorization server. It returns the callback URL with the code.
func (b *browser) approve(t testing.TB, authorization *url.URL) *url.URL {
	t.Helper()
	resp := b.nav(t, authorization.String())
	to := resp.Location()
	if to == nil {
		t.Fatalf("the authorization server answered %v, want a redirect to the callback", resp)
	}
	return to
}

// session returns the value of the session cookie, or "".
func (b *browser) session() string {
	u, _ := url.Parse(b.w.site) // a valid URL by construction
	if c := b.Jar.Cookie(u, sessionCookie); c != nil {
		return c.Value
	}
	return ""
}

// logins returns the login cookies as name=value.
func (b *browser) logins() []string {
	u, _ := url.Parse(b.w.site)
	var pairs []string
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, loginCookie) {
			pairs = append(pairs, c.Name+"="+c.Value)
		}
	}
	return pairs
}

// appAnswer decodes the app's answer, which describes the request. It returns false if the
// answer did not come from the app.
func appAnswer(resp *client.Response) (echo.Request, bool) {
	var seen echo.Request
	err := json.Unmarshal(resp.Body, &seen)
	return seen, err == nil && seen.Line != ""
}

// checkSession checks that the browser has a session and that the app receives its access
// token.
func (b *browser) checkSession(t testing.TB) {
	t.Helper()
	resp := b.xhr(t, http.MethodGet, "/works")
	seen, ok := appAnswer(resp)
	if !ok || resp.Status != http.StatusOK || len(seen.Values("Authorization")) != 1 {
		t.Errorf("got %v, want a working session", resp)
	}
}

// checkRefused checks the answer to a request without a session: a redirect to the login
// for a navigation, 401 for any other request. The app must not answer.
func (w *world) checkRefused(t testing.TB, resp *client.Response) {
	t.Helper()
	if _, ok := appAnswer(resp); ok {
		t.Errorf("the app answered: %v", resp)
	}
	switch {
	case resp.Status == http.StatusFound && w.isAuthorization(resp.Location()):
	case resp.Status == http.StatusUnauthorized && resp.Header.Get("Location") == "":
	default:
		t.Errorf("got %v, want a login or 401", resp)
	}
}

// appRequests returns the requests that reach the app while f runs.
func (w *world) appRequests(f func()) []echo.Request {
	before := len(w.app.Requests())
	f()
	return w.app.Requests()[before:]
}

// boundedContext bounds a request that might hang.
func boundedContext(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), waitLimit)
}
