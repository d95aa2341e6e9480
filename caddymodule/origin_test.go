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
		{name: "base_url", from: untrusted, header: forged, options: "base_url https://public.example.test/", want: "https://public.example.test"},
		{name: "base_url, trusted", from: trusted, header: forged, options: "base_url https://public.example.test", want: "https://public.example.test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			text := site(tc.options, "")
			if !tc.noTrust {
				text = "{\nservers {\ntrusted_proxies static " + trusted + "/32\n}\n}\n" + text
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
