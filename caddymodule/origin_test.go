package caddymodule

import (
	"net/http"
	"strings"
	"testing"
)

// Only trusted proxies set the origin. X-Forwarded-* of other clients changes neither
// redirect_uri nor the page after a login.
func TestOriginIgnoresUntrustedHeaders(t *testing.T) {
	const trusted, untrusted = "127.0.0.2", "127.0.0.1"
	forged := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil.example.test"}}
	for _, tc := range []struct {
		name, from string
		noTrust    bool // no trusted_proxies at all
		header     http.Header
		options    string
		want       string // origin of redirect_uri; "" for that of the site
	}{
		{name: "direct", from: untrusted, noTrust: true},
		{name: "direct, forged", from: untrusted, noTrust: true, header: forged},
		{name: "untrusted, forged", from: untrusted, header: forged},
		{name: "untrusted, other headers", from: untrusted, header: http.Header{"Forwarded": {"proto=https;host=evil.example.test"}, "X-Forwarded-Port": {"1"}, "X-Original-Host": {"evil.example.test"}}},
		{name: "trusted, no headers", from: trusted},
		{name: "trusted", from: trusted, header: http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"app.example.test"}}, want: "https://app.example.test"},
		{name: "trusted, upper case", from: trusted, header: http.Header{"X-Forwarded-Proto": {"HTTPS"}, "X-Forwarded-Host": {"App.Example.Test"}}, want: "https://app.example.test"},
		{name: "trusted, client's value before", from: trusted, header: http.Header{"X-Forwarded-Proto": {"http, https"}, "X-Forwarded-Host": {"evil.example.test, app.example.test"}}, want: "https://app.example.test"},
		{name: "trusted, client's line before", from: trusted, header: http.Header{"X-Forwarded-Proto": {"http", "https"}, "X-Forwarded-Host": {"evil.example.test", "app.example.test"}}, want: "https://app.example.test"},
		{name: "trusted, default port", from: trusted, header: http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"app.example.test:443"}}, want: "https://app.example.test"},
		{name: "trusted, default port in Host", from: trusted, header: http.Header{"Host": {"App.example.test:443"}, "X-Forwarded-Proto": {"https"}}, want: "https://app.example.test"},
		{name: "trusted, other port in Host", from: trusted, header: http.Header{"Host": {"app.example.test:8443"}, "X-Forwarded-Proto": {"https"}}, want: "https://app.example.test:8443"},
		{name: "trusted, scheme of a WebSocket", from: trusted, header: http.Header{"X-Forwarded-Proto": {"wss"}, "X-Forwarded-Host": {"app.example.test"}}, want: "https://app.example.test"},
		{name: "base_url, default port", from: untrusted, options: "base_url https://Public.example.test:443/", want: "https://public.example.test"},
		{name: "base_url, upper case", from: untrusted, options: "base_url HTTPS://PUBLIC.EXAMPLE.TEST", want: "https://public.example.test"},
		{name: "base_url, upper case loopback", from: untrusted, options: "base_url HTTP://LOCALHOST", want: "http://localhost"},
		{name: "base_url", from: untrusted, header: forged, options: "base_url https://public.example.test/", want: "https://public.example.test"},
		{name: "base_url, trusted", from: trusted, header: forged, options: "base_url https://public.example.test", want: "https://public.example.test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			text := site(tc.options, "")
			if !tc.noTrust {
				text = "{\nservers {\ntrusted_proxies static " + trusted + "/32\n}\n}\n" + text
			}
			if tc.header["Host"] != nil {
				text = strings.Replace(text, "http://localhost:", "http://:", 1)
			}
			w.load(text)
			b := newBrowserFrom(t, w.origin, tc.from)
			b.header = tc.header
			want := tc.want
			if want == "" {
				want = w.origin
			}
			if got := b.open("/x").redirectURI(t); got != want+"/oauth2/callback" {
				t.Errorf("got redirect_uri %s, want one of %s", got, want)
			}
			if tc.want != "" {
				return // the browser would leave the test
			}
			if a := b.login("/x"); a.url != w.origin+"/x" {
				t.Errorf("got page %s after the login, want /x", a.url)
			}
		})
	}
}

// Forms of the site's own pages pass, however a proxy or the configuration spells the
// site's origin. Those of other sites do not.
func TestOwnFormsPassWhateverTheSpellingOfTheOrigin(t *testing.T) {
	const trusted = "127.0.0.2"
	forwarded := func(host, proto string) http.Header {
		return http.Header{"Host": {host}, "X-Forwarded-Proto": {proto}}
	}
	for _, tc := range []struct {
		name, options string
		header        http.Header
		ok, refused   string
	}{
		{"port of the proxy", "", forwarded("app.example.test:443", "https"), "https://app.example.test", "https://app.example.test:8443"},
		{"upper case", "", forwarded("App.Example.test", "HTTPS"), "https://app.example.test", "http://app.example.test"},
		{"WebSocket", "", forwarded("app.example.test", "wss"), "https://app.example.test", "https://evil.example.test"},
		{"base_url", "base_url https://App.Test:443", nil, "https://app.test", "https://app.test:444"},
		{"trusted_origins", "base_url https://app.test\ntrusted_origins https://Admin.Test:443", nil, "https://admin.test", "https://admin.test.evil.test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			text := strings.Replace(site(tc.options, ""), "http://localhost:", "http://:", 1)
			w.load("{\nservers {\ntrusted_proxies static " + trusted + "/32\n}\n}\n" + site("", ""))
			b := newBrowserFrom(t, w.origin, trusted)
			b.login("/")
			w.load("{\nservers {\ntrusted_proxies static " + trusted + "/32\n}\n}\n" + text)
			b.header = tc.header
			if a := b.send(http.MethodPost, "/form", http.Header{"Origin": {tc.ok}}); a.status != http.StatusOK {
				t.Errorf("Origin %s: got status %d, want the app's answer: %s", tc.ok, a.status, a.body)
			}
			if a := b.send(http.MethodPost, "/form", http.Header{"Origin": {tc.refused}}); a.status != http.StatusForbidden {
				t.Errorf("Origin %s: got status %d, want 403", tc.refused, a.status)
			}
		})
	}
}

// Browsers refuse Secure cookies over plain HTTP, so no login begins. The page names the
// options that help.
func TestPlainHTTPIsRefused(t *testing.T) {
	w := newWorld(t)
	w.load(strings.Replace(site("", ""), "http://localhost:", "http://app.example.test:", 1))
	b := newBrowser(t, "http://app.example.test:"+w.port)
	a := b.open("/")
	if a.status != http.StatusInternalServerError || len(b.cookies) != 0 {
		t.Errorf("got status %d and %d cookies, want 500 and none", a.status, len(b.cookies))
	}
	for _, text := range []string{"base_url", "trusted_proxies"} {
		if !strings.Contains(a.body, text) {
			t.Errorf("got a page without %s:\n%s", text, a.body)
		}
		captured.wait(t, `"level":"error"`, `"code":"insecure_origin"`, text)
	}
}

// Rewriting Host on the way to the app does not change the redirect URI.
func TestRewrittenHostDoesNotChangeOrigin(t *testing.T) {
	w := newWorld(t)
	w.load("http://localhost:{$PORT} {\nrequest_header Host internal.example.test\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP} {\nheader_up Host other.example.test\n}\n}")
	b := newBrowser(t, w.origin)
	r := b.login("/").echo(t)
	if got := r.Values("Host"); len(got) != 1 || got[0] != "other.example.test" {
		t.Errorf("got Host %q at the app, want other.example.test", got)
	}
}
