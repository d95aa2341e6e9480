package security

import (
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS77UpstreamRedirectsReachTheBrowser: the site relays the app's redirects and does
// not follow them. The module gives no warning about an upstream in plain http: the
// operator may have placed it in a private container network.
func TestS77UpstreamRedirectsReachTheBrowser(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for _, to := range []string{"https://evil.test/x", "//evil.test/", "/admin", w.attacker.URL} {
		reached := w.appRequests(func() {
			resp := b.send(t, http.MethodGet, "/u/redirect?"+url.Values{"to": {to}}.Encode(), "", navigationHeaders...)
			if resp.Status != http.StatusFound || resp.Header.Get("Location") != to {
				t.Errorf("redirect to %s: got %v to %q", to, resp, resp.Header.Get("Location"))
			}
		})
		if len(reached) != 1 {
			t.Errorf("redirect to %s: the app got %d requests, want 1", to, len(reached))
		}
	}
	if contacts, _ := w.attacker.received(); contacts != 0 {
		t.Errorf("the site followed %d redirects, want none", contacts)
	}
}

// TestS78UpstreamRefusalCausesOneRefresh: an app that calls every token invalid causes at
// most one refresh, no loop, and no repeated form. The handler package tests that a
// refused old token is refreshed once.
func TestS78UpstreamRefusalCausesOneRefresh(t *testing.T) {
	w := newWorld(t, plan{options: "retry_unauthorized"})
	b := w.loggedIn(t)
	before := w.refreshes()
	const each = 10
	reached := w.appRequests(func() {
		for range each {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				resp := b.send(t, method, "/u/401", strings.Repeat("x", map[string]int{http.MethodPost: 100}[method]), scriptHeaders...)
				if resp.Status != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
					t.Errorf("%s: got %v with WWW-Authenticate %q", method, resp, resp.Header.Get("WWW-Authenticate"))
				}
			}
		}
	})
	if refreshes := w.refreshes() - before; len(reached) > 2*each+1 || refreshes > 1 {
		t.Errorf("%d requests: the app got %d, with %d refreshes", 2*each, len(reached), refreshes)
	}
	posts := slices.DeleteFunc(reached, func(r echo.Request) bool { return !strings.HasPrefix(r.Line, "POST ") })
	if len(posts) != each {
		t.Errorf("%d forms: the app got %d", each, len(posts))
	}
}

var externalResource = regexp.MustCompile(`(?i)(src|href|action|url)\s*[=(]\s*["']?\s*(https?:)?//`)

// TestS80OwnAnswersAreSelfContained: caches do not store the module's own answers. The
// answers send no Referer to other sites and load nothing from them.
func TestS80OwnAnswersAreSelfContained(t *testing.T) {
	w := sharedBare(t)
	b := w.browser()
	start := b.nav(t, "/x")
	done := b.nav(t, b.approve(t, start.Location()).String())
	if done.Status != http.StatusSeeOther || done.Header.Get("Location") != w.site+"/x" || len(done.Body) != 0 {
		t.Errorf("callback: got %v to %q with body %q", done, done.Header.Get("Location"), done.Body)
	}
	type own struct {
		name   string
		header http.Header
		body   []byte
	}
	answers := []own{{"start of a login", start.Header, start.Body}, {"callback", done.Header, done.Body}}
	for _, request := range []string{
		"GET " + callback, "GET " + callback + "?state=x&code=y", "GET " + logout, "GET " + sessionInfo, "HEAD " + sessionInfo, "GET " + logoutCallback, "GET " + prefix + "/unknown",
		"POST " + backchannel, "POST " + sessionInfo, "GET " + refresh, "POST " + refresh, "GET /x", "POST /x", "TRACE /x", "GET " + login + "?prompt=x", "GET " + login,
	} {
		for _, lines := range [][]string{navigationHeaders, scriptHeaders} {
			method, target, _ := strings.Cut(request, " ")
			resp := w.browser().send(t, method, target, "", lines...)
			answers = append(answers, own{request, resp.Header, resp.Body})
		}
	}
	resp := b.send(t, http.MethodPost, "/x", "", append(slices.Clone(navigationHeaders[:2]), "Accept: text/html", "Origin: https://evil.test")...)
	answers = append(answers, own{"cross-site form", resp.Header, resp.Body})
	resp = b.xhr(t, http.MethodPost, logout)
	answers = append(answers, own{"logout", resp.Header, resp.Body})
	for _, a := range answers {
		referrer := "no-referrer"
		if a.name == "GET "+logout {
			// The form on the logout page must send its origin to the site.
			referrer = "origin"
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": referrer, "X-Content-Type-Options": "nosniff"} {
			if got := a.header.Values(name); !slices.Equal(got, []string{want}) {
				t.Errorf("%s: got %s %q, want %q", a.name, name, got, want)
			}
		}
		if !strings.Contains(a.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("%s: got Content-Security-Policy %q, want frame-ancestors 'none'", a.name, a.header.Get("Content-Security-Policy"))
		}
		if strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			if found := externalResource.Find(a.body); found != nil {
				t.Errorf("%s: the page loads %q from another site", a.name, found)
			}
		}
	}
}

// TestAnswersThatSetCookiesAreNotCached: an answer that sets one of the module's cookies
// is not cacheable, even when the error page comes from an app that marks it as cacheable.
func TestAnswersThatSetCookiesAreNotCached(t *testing.T) {
	w := shared(t)
	for _, request := range []string{"GET /u/public-cache", "POST /u/public-cache"} {
		method, target, _ := strings.Cut(request, " ")
		b, expired := w.loginWithShortToken(t)
		w.idp.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh).Repeat(-1))
		sleep(t, expired) // the request itself must discover the end of the session
		resp := b.send(t, method, target, "", navigationHeaders...)
		w.idp.ClearFaults()
		if resp.Status == http.StatusOK {
			t.Errorf("%s: got %v, want the end of the session", request, resp)
		}
		cookies := resp.Header.Values("Set-Cookie")
		if !slices.ContainsFunc(cookies, func(line string) bool { return strings.HasPrefix(line, sessionCookie+"=;") }) {
			t.Errorf("%s: got cookies %q, want the deletion of the session cookie", request, cookies)
		}
		if caching := strings.Join(resp.Header.Values("Cache-Control"), ", "); !strings.Contains(caching, "no-store") {
			t.Errorf("%s: got %v with cookies %q and Cache-Control %q, want no-store", request, resp, cookies, caching)
		}
	}
	if !slices.ContainsFunc(w.errorApp.Requests(), func(r echo.Request) bool { return strings.Contains(r.Line, "/u/public-cache") }) {
		t.Error("the error app got no request")
	}
}

// TestS81ProtectedPageIsHiddenBeforeLogin: without a session no request reveals a byte or
// the size of a protected page.
func TestS81ProtectedPageIsHiddenBeforeLogin(t *testing.T) {
	w := sharedBare(t) // the error app's page would look like the app's
	reached := w.appRequests(func() {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
			for _, lines := range [][]string{navigationHeaders, scriptHeaders, {"Range: bytes=0-3"}, {"If-None-Match: *"}, {"Expect: 100-continue"}, {"Upgrade: websocket", "Connection: Upgrade"}} {
				resp := w.raw(t, w.request(method+" /admin", lines...))
				if resp.Status != http.StatusFound && resp.Status != http.StatusUnauthorized {
					t.Errorf("%s with %q: got status %d, want 302 or 401", method, lines, resp.Status)
				}
				if bytes.Contains(resp.Body, []byte("SECRET-PAGE")) || bytes.Contains(resp.Bytes, []byte("100 Continue")) {
					t.Errorf("%s with %q: the answer reveals %q", method, lines, resp.Body)
				}
			}
		}
	})
	if len(reached) != 0 {
		t.Errorf("the app got %v, want no request", reached)
	}
}

// TestS82TraceAndConnectAreRefused: TRACE does not echo the Authorization header, and
// CONNECT does not tunnel past the module.
func TestS82TraceAndConnectAreRefused(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for _, request := range []string{"TRACE /x", "trace /x", "Trace /static/x", "CONNECT " + w.host, "connect /x", "TRACE " + sessionInfo, "CONNECT " + w.app.Addr(), "CONNECT evil.test:443", "CONNECT *"} {
		for _, lines := range [][]string{nil, {b.cookieLine()}, {b.cookieLine(), "Upgrade: websocket", "Connection: Upgrade"}, {b.cookieLine(), "Max-Forwards: 0"}} {
			var resp *rawAnswer
			reached := w.appRequests(func() { resp = w.raw(t, w.request(request, lines...)) })
			// The target of CONNECT is the request's host. Caddy has no site for a foreign
			// host: it sends an empty answer and closes the connection.
			elsewhere := strings.HasPrefix(request, "CONNECT ") && !strings.HasSuffix(request, w.host)
			refused := resp.Status == http.StatusMethodNotAllowed || resp.Status == http.StatusBadRequest
			if len(reached) != 0 || !refused && (!elsewhere || len(resp.Body) != 0) || bytes.Contains(resp.Body, []byte("AT_")) {
				t.Errorf("%s with %d header lines: got status %d, and the app got %v", request, len(lines), resp.Status, reached)
			}
		}
	}
}
