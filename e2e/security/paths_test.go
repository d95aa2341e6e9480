package security

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// mayResolveToAdmin reports whether an app may read a target as a path below /admin. The
// app may decode it up to three times, read a backslash as a slash, drop path parameters
// and ignore case.
func mayResolveToAdmin(target string) bool {
	p, _, _ := strings.Cut(target, "?")
	for range 3 {
		plain := strings.ToLower(strings.ReplaceAll(p, `\`, "/"))
		var kept []string
		for segment := range strings.SplitSeq(plain, "/") {
			segment, _, _ = strings.Cut(segment, ";")
			kept = append(kept, segment)
		}
		for _, reading := range []string{plain, strings.Join(kept, "/")} {
			if clean := path.Clean("/" + reading); clean == "/admin" || strings.HasPrefix(clean, "/admin/") {
				return true
			}
		}
		decoded, err := url.PathUnescape(p)
		if err != nil {
			return false
		}
		p = decoded
	}
	return false
}

func requestTarget(r echo.Request) string {
	parts := strings.SplitN(r.Line, " ", 3)
	return parts[1]
}

// TestS84NoSpellingOpensAProtectedPath: no spelling of a protected path matches the
// optional path.
func TestS84NoSpellingOpensAProtectedPath(t *testing.T) {
	w := shared(t)
	for _, target := range []string{
		"/static/../admin", "/static/%2e%2e/admin", "/static/..%2fadmin", "/static/..;/admin", "/static//../admin", "//admin", "/./admin", "/%61dmin", "/ADMIN", "/admin/",
		"/admin;x=/static/", "/admin?/static/", "/admin%3f/static/", "/static%2f..%2fadmin",
		// Double encoding, and characters that other systems read as a slash or a dot.
		"/static/%252e%252e/admin", "/static/..%252fadmin", "/static/%252e%252e%252fadmin", "/static/%25252e%25252e/admin", "/static/%2e%2e%2fadmin", "/static/.%2e/admin",
		`/static/..\admin`, "/static/..%5cadmin", "/static/..%255cadmin", `/static\..\admin`, "/static/..;x=1/admin", "/static/..%3b/admin", "/static/x/../../admin", "/static/x/..%2f..%2fadmin",
		"/static/a%2fb", "/static/./x", "/static/x;v=1", "/static;/x", "//static/admin", "/%2561dmin", "/static/admin%00.css", "/%c0%afadmin",
		"/static/..%00/admin", "/static/..%20/admin", "/static/..", "/static/..%2f", "/STATIC/../admin", "/static/../Admin", "/admin/../static/../admin", "/static/.%252e/%61dmin",
	} {
		for name, lines := range map[string][]string{"window": navigationHeaders, "script": scriptHeaders} {
			var resp *rawAnswer
			reached := w.appRequests(func() { resp = w.rawGet(t, target, lines...) })
			if strings.Contains(string(resp.Body), "SECRET-PAGE") {
				t.Errorf("%s by a %s: got the protected page", target, name)
			}
			for _, r := range reached {
				if mayResolveToAdmin(requestTarget(r)) {
					t.Errorf("%s by a %s: the app got %s", target, name, r.Line)
				}
			}
			if len(reached) == 0 && resp.Status != http.StatusFound && resp.Status != http.StatusUnauthorized && resp.Status != http.StatusBadRequest {
				t.Errorf("%s by a %s: got status %d", target, name, resp.Status)
			}
		}
	}
	// Plain spellings of the optional path stay optional.
	for _, target := range []string{"/static/x", "/static/", "/static/..x", "/static/a%20b", "/static/100%25", "/static/a,b=c", "/static/.x", "/static/caf%C3%A9"} {
		if reached := w.appRequests(func() { w.rawGet(t, target, scriptHeaders...) }); len(reached) != 1 || requestTarget(reached[0]) != target {
			t.Errorf("%s: the app got %v, want the same target", target, reached)
		}
	}
}

// TestS85HeadersDoNotReplaceTheURL: no header replaces the requested URL, neither for the
// decision nor for the page after the login.
func TestS85HeadersDoNotReplaceTheURL(t *testing.T) {
	w := shared(t)
	for _, line := range []string{
		"X-Forwarded-Uri: /static/x", "X-Original-URL: /static/x", "X-Rewrite-URL: /static/x", "X-Forwarded-Prefix: /static", "X-Forwarded-Method: OPTIONS",
		"X-Original-Uri: /static/x", "X-Forwarded-Path: /static/x", "X-Replaced-Path: /static/x", "X-Http-Method-Override: OPTIONS", "X-Forwarded-Host: evil.test",
	} {
		t.Run(line, func(t *testing.T) {
			b := w.browser()
			reached := w.appRequests(func() {
				w.checkRefused(t, b.send(t, http.MethodGet, "/admin", "", append([]string{line}, scriptHeaders...)...))
				start := b.send(t, http.MethodGet, "/admin", "", append([]string{line}, navigationHeaders...)...)
				w.checkRefused(t, start)
				done := b.nav(t, b.approve(t, start.Location()).String())
				if got := done.Header.Get("Location"); got != w.site+"/admin" {
					t.Errorf("got page %q after the login, want /admin", got)
				}
			})
			if len(reached) != 0 {
				t.Errorf("the app got %v, want no request", reached)
			}
		})
	}
}

// TestS86NoClientIsExempt: no user agent and no claimed address passes without a session.
func TestS86NoClientIsExempt(t *testing.T) {
	w := shared(t)
	reached := w.appRequests(func() {
		for _, agent := range []string{"GoogleHC/1.0", "kube-probe/1.29", "ELB-HealthChecker/2.0", "Consul Health Check", "Amazon-Route53-Health-Check-Service", ""} {
			for _, path := range []string{"/", "/admin", "/healthz", "/ping", "/ready", "/robots.txt", "/favicon.ico", "/.well-known/x"} {
				w.checkRefused(t, w.browser().send(t, http.MethodGet, path, "", "User-Agent: "+agent, "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1"))
			}
		}
	})
	if len(reached) != 0 {
		t.Errorf("the app got %v, want no request", reached)
	}
}

// TestS87EndpointsMatchExactly: only the exact spelling is an endpoint, and no path below
// the prefix reaches the app.
func TestS87EndpointsMatchExactly(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	before := w.tokenRequests()
	for _, endpoint := range []string{login, callback, logout, logoutCallback, sessionInfo, refresh, backchannel} {
		for _, spelling := range []string{"%s/", "%s%%2f", "%s;x", "%s%%00", "%s%%20", "%s.", "/x/..%s", "/.%s", "/%s", "/x/%%2e%%2e%s", "%s/../x", "%s%%3fx"} {
			targets := []string{fmt.Sprintf(spelling, endpoint), fmt.Sprintf(spelling, strings.ToUpper(endpoint)), fmt.Sprintf(spelling, strings.Replace(endpoint, "o", "%6f", 1))}
			for _, target := range targets {
				w.checkNoEndpoint(t, b, target)
			}
		}
		for _, target := range []string{strings.ToUpper(endpoint), strings.Replace(endpoint, "/", "%2f", 2)[3:], strings.Replace(endpoint, "oauth2/", "oauth2%2f", 1), strings.Replace(endpoint, "oauth2/", "oauth2//", 1), strings.Replace(endpoint, "oauth2/", "oauth2/./", 1)} {
			if strings.HasPrefix(target, "/") {
				w.checkNoEndpoint(t, b, target)
			}
		}
	}
	for _, target := range []string{prefix + "/", prefix + "/unknown", prefix + "/callback2", prefix + "/..%2fx", prefix + "/../x", prefix + "/session/", prefix + "/%2e%2e/x"} {
		w.checkNoEndpoint(t, b, target)
	}
	if calls := w.tokenRequests() - before; calls != 0 {
		t.Errorf("got %d token requests, want none", calls)
	}
	b.checkSession(t)
}

// checkNoEndpoint checks that a target is no endpoint: 404 below the prefix, an ordinary
// protected path elsewhere.
func (w *world) checkNoEndpoint(t *testing.T, b *browser, target string) {
	t.Helper()
	for name, lines := range map[string][]string{"no session": scriptHeaders, "session": append([]string{b.cookieLine()}, scriptHeaders...)} {
		for _, method := range []string{"GET", "POST"} {
			var resp *rawAnswer
			reached := w.appRequests(func() { resp = w.raw(t, w.request(method+" "+target+"?state=x&code=y", lines...)) })
			decoded, err := url.PathUnescape(target)
			below := err == nil && strings.HasPrefix(decoded, prefix+"/")
			passes := name == "session" && !below
			if passes != (len(reached) == 1) && resp.Status != http.StatusBadRequest {
				t.Errorf("%s %s, %s: got status %d, and the app got %v", method, target, name, resp.Status, reached)
			}
			if want := map[bool]int{true: http.StatusNotFound, false: http.StatusUnauthorized}[below]; !passes && resp.Status != want && resp.Status != http.StatusBadRequest {
				t.Errorf("%s %s, %s: got status %d, want %d", method, target, name, resp.Status, want)
			}
			if resp.Header["Set-Cookie"] != nil {
				t.Errorf("%s %s, %s: got cookies %q, want none", method, target, name, resp.Header["Set-Cookie"])
			}
		}
	}
}

// TestS88SessionBelongsToOneSite: the site is protected under every form of its host name,
// and its sessions are valid at no other site.
func TestS88SessionBelongsToOneSite(t *testing.T) {
	w := newWorld(t, plan{sites: `https://other.test:{PORT} {
	bind 127.0.0.1
	{TLS}
	oauth_session {
		authorization_endpoint https://evil.test/authorize
		token_endpoint https://evil.test/token
		client_id other
		client_secret none
		base_url https://other.test:{PORT}
	}
	respond "OTHER {http.request.header.Authorization}"
}
`})
	b := w.loggedIn(t)
	_, port, _ := strings.Cut(w.host, ":")
	for _, host := range []string{"APP.TEST:" + port, "app.test.:" + port, "app.test", "App.Test", "app.test:1", "x.app.test:" + port, "localhost:" + port, "127.0.0.1:" + port, "evil.test", "", "app.test:" + port + "@evil.test", "other.test:" + port} {
		var resp *rawAnswer
		raw := "GET /admin HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(navigationHeaders, "\r\n") + "\r\nConnection: close\r\n\r\n"
		reached := w.appRequests(func() { resp = w.raw(t, raw) })
		if len(reached) != 0 {
			t.Errorf("Host %q: the app got %v, want no request", host, reached)
		}
		if to := resp.Header.Get("Location"); to != "" {
			if u, err := url.Parse(to); err != nil || !w.isAuthorization(u) && !strings.HasPrefix(host, "other.test") {
				t.Errorf("Host %q: got Location %q", host, to)
			}
			if u, err := url.Parse(to); err == nil && w.isAuthorization(u) && u.Query().Get("redirect_uri") != w.site+callback {
				t.Errorf("Host %q: got redirect_uri %q", host, u.Query().Get("redirect_uri"))
			}
		}
	}
	// The other site has the same store and key, but another client.
	resp := w.raw(t, "GET /x HTTP/1.1\r\nHost: other.test:"+port+"\r\n"+b.cookieLine()+"\r\n"+strings.Join(scriptHeaders, "\r\n")+"\r\nConnection: close\r\n\r\n")
	if resp.Status != http.StatusUnauthorized || strings.Contains(string(resp.Body), "OTHER") {
		t.Errorf("session of another site: got status %d, %s, want 401", resp.Status, resp.Body)
	}
	b.checkSession(t)
}
