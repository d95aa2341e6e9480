package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestNoLoginFromSubresources sends the requests of old and new browsers for everything except navigations. None starts a
// login.
func TestNoLoginFromSubresources(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, s, "", app))
	html := "text/html,application/xhtml+xml,*/*;q=0.8"
	fetchSite := func(site, mode, dest, accept string) map[string]string {
		return map[string]string{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest, "Accept": accept}
	}
	upgrade := map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for _, tc := range []struct {
		name   string
		method string
		header map[string]string
	}{
		{"no headers", "GET", nil},
		{"curl", "GET", map[string]string{"Accept": "*/*"}},
		{"XHR", "GET", map[string]string{"Accept": "*/*", "X-Requested-With": "XMLHttpRequest"}},
		{"XHR for HTML", "GET", map[string]string{"Accept": html, "X-Requested-With": "XMLHttpRequest"}},
		{"fetch", "GET", fetchSite("same-origin", "cors", "empty", "*/*")},
		{"fetch for HTML", "GET", fetchSite("same-origin", "same-origin", "empty", html)},
		{"fetch from another site", "GET", fetchSite("cross-site", "no-cors", "empty", "*/*")},
		{"fetch POST", "POST", fetchSite("same-origin", "cors", "empty", "*/*")},
		{"image", "GET", fetchSite("same-origin", "no-cors", "image", "image/avif,*/*")},
		{"image from another site", "GET", fetchSite("cross-site", "no-cors", "image", "image/avif,*/*")},
		{"script", "GET", fetchSite("same-site", "no-cors", "script", "*/*")},
		{"module", "GET", fetchSite("same-origin", "cors", "script", "*/*")},
		{"style", "GET", fetchSite("same-origin", "no-cors", "style", "text/css,*/*")},
		{"WebSocket", "GET", upgrade},
		{"WebSocket that accepts HTML", "GET", with(upgrade, map[string]string{"Accept": html})},
		{"WebSocket with Sec-Fetch", "GET", with(upgrade, fetchSite("same-origin", "websocket", "websocket", "*/*"))},
		{"EventSource", "GET", fetchSite("same-origin", "cors", "empty", "text/event-stream")},
		{"EventSource without Sec-Fetch", "GET", map[string]string{"Accept": "text/event-stream"}},
		{"iframe", "GET", fetchSite("same-origin", "navigate", "iframe", html)},
		{"iframe from another site", "GET", fetchSite("cross-site", "navigate", "iframe", html)},
		{"object", "GET", fetchSite("same-origin", "navigate", "object", html)},
		{"prefetch", "GET", with(fetchSite("none", "navigate", "document", html), map[string]string{"Sec-Purpose": "prefetch;prerender"})},
		{"form", "POST", fetchSite("same-origin", "navigate", "document", html)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp := send(t, tc.method, site+"/x", tc.header)
			if resp.Status != http.StatusUnauthorized || resp.Header["Location"] != nil || resp.Header["Set-Cookie"] != nil {
				t.Errorf("got %v with %v, want 401 without Location and cookie", resp, resp.Header)
			}
			if !strings.Contains(string(resp.Body), "/oauth2/login") || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %v with %v, want the login URL and no-store", resp, resp.Header)
			}
		})
	}
	for _, header := range []map[string]string{{"Accept": html}, fetchSite("none", "navigate", "document", html)} {
		resp := send(t, "GET", site+"/x", header)
		if resp.Status != http.StatusFound || resp.Location() == nil || resp.Header["Set-Cookie"] == nil {
			t.Errorf("navigation with %v: got %v with %v, want a login", header, resp, resp.Header)
		}
	}
	if n := len(app.Requests()); n != 0 {
		t.Errorf("the app got %d requests, want none", n)
	}
}

// send sends a request with exactly the given headers.
func send(t *testing.T, method, rawURL string, header map[string]string) *client.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, rawURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := client.New("", "").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// with returns the headers of a and b. Those of b win.
func with(a, b map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for name, value := range m {
			all[name] = value
		}
	}
	return all
}

// subresources is a script that sends each kind of request that a page can send without a navigation, below a URL.
const subresources = `(base) => {
	const element = (tag, path, property) => new Promise((settled) => {
		const e = document.createElement(tag);
		e.onload = e.onerror = settled;
		e[property] = base + path;
		document.body.append(e);
	});
	return Promise.all([
		fetch(base + 'fetch').catch(() => {}),
		fetch(base + 'no-cors', { mode: 'no-cors' }).catch(() => {}),
		new Promise((settled) => {
			const x = new XMLHttpRequest();
			x.onloadend = settled;
			x.open('GET', base + 'xhr');
			x.send();
		}),
		element('img', 'image', 'src'),
		element('script', 'script', 'src'),
		element('iframe', 'iframe', 'src'),
		new Promise((settled) => { new WebSocket(base.replace('http', 'ws') + 'websocket').onclose = settled; }),
		new Promise((settled) => {
			const events = new EventSource(base + 'events');
			events.onerror = () => { events.close(); settled(); };
		}),
	]).then(() => true);
}`

var subresourceNames = []string{"fetch", "no-cors", "xhr", "image", "script", "iframe", "websocket", "events"}

// TestNoLoginFromSubresourcesInBrowser sends the requests from real pages: a public one of the same site, and one of another
// site. It reads the results in Caddy's access log, since a browser hides them from pages.
func TestNoLoginFromSubresourcesInBrowser(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	other := strings.Replace(newSite(t), "localhost", "127.0.0.1", 1)
	_, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	page := "header Content-Type text/html\nrespond \"<!doctype html><title>page</title><body>hello\"\n"
	caddy := caddyserver.Start(t, caddyserver.Config{
		Env: secret(s),
		Sites: block(site, "handle /public {\n"+page+"}\nhandle {\n"+protect(s, "")+"reverse_proxy "+app.Addr()+"\n}") +
			block(other, page),
	})
	b, tab := browser.Start(t)
	for i, from := range []string{site + "/public", other + "/"} {
		if doc := tab.Open(t, from); doc.Status != http.StatusOK {
			t.Fatalf("got %+v, want the public page", doc)
		}
		below := fmt.Sprintf("/x%d/", i)
		browser.Eval[bool](t, tab, fmt.Sprintf("(%s)(%q)", subresources, site+below))
		for _, name := range subresourceNames {
			if got := awaitLogOutcome(t, caddy, below+name); got != (outcome{status: http.StatusUnauthorized}) {
				t.Errorf("%s from %s: got %+v, want 401 without Location and cookie", name, from, got)
			}
		}
	}
	if cookies := b.Cookies(t); len(cookies) != 0 {
		t.Errorf("got cookies %v, want none", cookies)
	}
	if n := len(app.Requests()); n != 0 {
		t.Errorf("the app got %d requests, want none", n)
	}
	// This shows that a login appears in the log.
	tab.Open(t, site+"/navigation")
	if got := awaitLogOutcome(t, caddy, "/navigation"); got != (outcome{status: http.StatusFound, location: true, cookie: true}) {
		t.Errorf("navigation: got %+v, want a login", got)
	}
}

// An outcome is an answer as described by Caddy's access log.
type outcome struct {
	status           float64
	location, cookie bool
}

// awaitLogOutcome waits for the access log entry of the first request for the URI, which Caddy writes after the answer.
func awaitLogOutcome(t *testing.T, caddy *caddyserver.Server, uri string) outcome {
	t.Helper()
	var found *outcome
	eventually(t, "access log entry for "+uri, func() bool {
		for _, entry := range caddy.Entries(t, "http.log.access") {
			if request, ok := entry["request"].(map[string]any); !ok || request["uri"] != uri {
				continue
			}
			status, _ := entry["status"].(float64)
			header, _ := entry["resp_headers"].(map[string]any)
			found = &outcome{status, header["Location"] != nil, header["Set-Cookie"] != nil}
			return true
		}
		return false
	})
	return *found
}
