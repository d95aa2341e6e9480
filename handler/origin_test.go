package handler

import (
	"io"
	"slices"
	"strings"
	"testing"
)

const trustedOrigin = "https://admin.test"

// crossOriginRequests has header lines, separated by |, and whether a request with
// them may change state.
var crossOriginRequests = []struct {
	header string
	ok     bool
}{
	{"", true}, // curl: no page can make it send a cookie
	{"Sec-Fetch-Site: same-origin", true},
	{"Sec-Fetch-Site: none", true},
	{"Sec-Fetch-Site: same-site", false},
	{"Sec-Fetch-Site: cross-site", false},
	{"Sec-Fetch-Site: something-new", false},
	{"Origin: https://app.test", true},
	{"Origin: https://app.test|Sec-Fetch-Site: same-origin", true},
	{"Origin: https://evil.test", false},
	{"Origin: https://evil.test|Sec-Fetch-Site: same-origin", false},
	{"Origin: https://evil.test|Sec-Fetch-Site: none", false},
	{"Origin: http://app.test", false},
	{"Origin: https://app.test:8443", false},
	{"Origin: https://app.test.evil.test", false},
	{"Origin: https://sub.app.test", false},
	{"Origin: https://APP.test", true}, // the same origin in another spelling
	{"Origin: https://app.test:443", true},
	{"Origin: https://app.test:80", false},
	{"Origin: HTTPS://Admin.Test:443|Sec-Fetch-Site: cross-site", true},
	{"Origin: https://app.test/", false},
	{"Origin: ", false},
	{"Origin: null", false},
	{"Origin: null|Sec-Fetch-Site: cross-site", false},
	{"Origin: null|Sec-Fetch-Site: same-site", false},
	{"Origin: null|Sec-Fetch-Site: none", false},
	{"Origin: null|Sec-Fetch-Site: same-origin", true}, // a page without Referrer
	{"Origin: https://app.test|Origin: https://evil.test", false},
	{"Origin: https://app.test|Origin: https://app.test", false},
	{"Origin: https://app.test, https://evil.test", false},
	{"Origin: " + trustedOrigin, true},
	{"Origin: " + trustedOrigin + "|Sec-Fetch-Site: cross-site", true},
	{"Origin: " + trustedOrigin + "|Sec-Fetch-Site: same-site", true},
	{"Origin: " + trustedOrigin + ".evil.test|Sec-Fetch-Site: cross-site", false},
	{"Origin: http://admin.test", false},
	{"Referer: https://evil.test/|Origin: https://app.test", true},
}

func TestUnsafeRequestFromAnotherSiteIsRefused(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.TrustedOrigins = []string{trustedOrigin} })
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	for _, tt := range crossOriginRequests {
		header := []string{cookie}
		if tt.header != "" {
			header = append(header, strings.Split(tt.header, "|")...)
		}
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO", "get", "Head", "options"} {
			a := g.do(g.request(method, "/api", header...))
			if tt.ok != (a.relayed == 1) {
				t.Errorf("%s with %q: got status %d and %d calls of the app, want those of the table", method, tt.header, a.status, a.relayed)
			}
			if !tt.ok && (a.status != 403 || a.problem(t).Code != "cross_origin" || a.header["Set-Cookie"] != nil) {
				t.Errorf("%s with %q: got status %d: %s, want cross_origin", method, tt.header, a.status, a.body)
			}
		}
		for _, override := range []string{"X-Http-Method-Override: DELETE", "X-HTTP-METHOD: put", "X_Method_Override: PATCH"} {
			a := g.get("/api", append(slices.Clone(header), override)...)
			if tt.ok != (a.relayed == 1) || !tt.ok && a.status != 403 {
				t.Errorf("GET with %s and %q: got status %d, want 403, %d calls of the app", override, tt.header, a.status, a.relayed)
			}
		}
		for _, method := range []string{"GET", "HEAD"} {
			if a := g.do(g.request(method, "/api", header...)); a.relayed != 1 {
				t.Errorf("%s with %q: got status %d, want that of the table", method, tt.header, a.status)
			}
		}
		for name, upgrade := range webSocketHandshakes {
			r := g.request(upgrade.method, "/socket", append(header, upgrade.header...)...)
			if upgrade.proto != "" {
				r.Proto = upgrade.proto
			}
			if a := g.do(r); tt.ok != (a.relayed == 1) {
				t.Errorf("%s with %q: got status %d, want that of the table", name, tt.header, a.status)
			}
		}
	}
}

// webSocketHandshakes has the forms of a request for a WebSocket.
var webSocketHandshakes = map[string]struct {
	method, proto string
	header        []string
}{
	"HTTP/1.1":           {"GET", "", []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-Websocket-Version: 13"}},
	"HTTP/1.1, Firefox":  {"GET", "", []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket"}},
	"HTTP/1.1, odd case": {"GET", "", []string{"Connection: upgrade", "Upgrade: WebSocket"}},
	"two Upgrade lines":  {"GET", "", []string{"Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"}},
	"HTTP/2":             {"CONNECT", "HTTP/2.0", []string{":protocol: websocket", "Sec-Websocket-Version: 13"}},
	"HTTP/3":             {"CONNECT", "websocket", []string{"Sec-Websocket-Version: 13"}},
}

func TestWebSocketWithoutASessionIsRefused(t *testing.T) {
	g := newRig(t, plainOAuth)
	for name, upgrade := range webSocketHandshakes {
		r := g.request(upgrade.method, "/socket", upgrade.header...)
		if upgrade.proto != "" {
			r.Proto = upgrade.proto
		}
		if a := g.do(r); a.status != 401 || a.relayed != 0 || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got status %d, want 401", name, a.status)
		}
	}
}

func TestCrossSiteFormGetsAPage(t *testing.T) {
	g := newRig(t, plainOAuth)
	a := g.post("/transfer", "Cookie: "+sessionCookie+"="+g.session(""), "Origin: https://evil.test",
		"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", acceptHTML)
	if a.status != 403 || !strings.Contains(a.body, "cross_origin") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("got status %d, want 403: %s", a.status, a.body)
	}
}

// TestPreflightIsRelayedWithoutAToken: a preflight has no cookie. It passes for
// trusted pages of other sites only. Pages of this site send none, so it would be a
// way around the login.
func TestPreflightIsRelayedWithoutAToken(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.TrustedOrigins = []string{"https://admin.test"} })
	for header, ok := range map[string]bool{
		"Access-Control-Request-Method: PUT|Origin: https://admin.test|Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: cors": true,
		"Access-Control-Request-Method: PUT|Origin: https://app.test":                                                   false,
		"Access-Control-Request-Method: PUT|Origin: https://admin.test|Upgrade: websocket":                              false,
		"Access-Control-Request-Method: PUT|Origin: https://admin.test|X-Http-Method-Override: DELETE":                  false,
		"Access-Control-Request-Method: PUT|Origin: https://admin.test|Origin: https://app.test":                        false,
		"Access-Control-Request-Method: PUT|Origin: https://evil.test":                                                  false,
		"Access-Control-Request-Method: PUT|Origin: null":                                                               false,
		"Access-Control-Request-Method: PUT":                                                                            false,
		"Origin: https://admin.test":                                                                                    false,
		"Accept: */*":                                                                                                   false,
	} {
		for _, method := range []string{"OPTIONS", "options", "GET", "POST"} {
			a := g.do(g.request(method, "/api", append(strings.Split(header, "|"), "Authorization: Bearer EVIL")...))
			want := ok && method == "OPTIONS"
			if want != (a.relayed == 1) || !want && a.status != 401 {
				t.Errorf("%s with %s: got status %d, want 401, %d calls of the app", method, header, a.status, a.relayed)
			}
			if a.relayed == 1 && g.app.last()["Authorization"] != nil {
				t.Errorf("got Authorization %q at the app, want none", g.app.last()["Authorization"])
			}
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("got header %s on the answer, want none", name)
				}
			}
		}
	}
}

// TestPreflightWithABodyIsRefused: a preflight has no body.
func TestPreflightWithABodyIsRefused(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.TrustedOrigins = []string{"https://admin.test"} })
	for _, length := range []int64{5, -1} {
		r := g.request("OPTIONS", "/api", "Access-Control-Request-Method: PUT", "Origin: https://admin.test")
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), length
		if a := g.do(r); a.status != 401 || a.relayed != 0 {
			t.Errorf("length %d: got status %d, want 401, %d calls of the app", length, a.status, a.relayed)
		}
	}
}

func TestCheckOriginAcceptsOnlyOrigins(t *testing.T) {
	for origin, ok := range map[string]bool{
		"https://app.test":       true,
		"https://app.test:8443":  true,
		"https://[::1]:8443":     true,
		"http://localhost:8080":  true,
		"http://a.localhost":     true,
		"http://127.0.0.1:1":     true,
		"http://127.1.2.3":       true,
		"http://[::1]":           true,
		"http://app.test":        false,
		"http://localhost.test":  false,
		"http://127.0.0.1.test":  false,
		"https://app.test/":      false,
		"https://app.test/x":     false,
		"https://app.test?x":     false,
		"https://app.test#x":     false,
		"https://u@app.test":     false,
		"https://":               false,
		"//app.test":             false,
		"app.test":               false,
		"null":                   false,
		"*":                      false,
		"":                       false,
		"ftp://app.test":         false,
		"https://app.test\r\nX:": false,
		"HTTPS://App.Test:443":   true,
		"HTTP://LOCALHOST":       true,
		"http://LocalHost:80":    true,
		"http://APP.test":        false,
		"https://app.test:65536": false,
		"https://app.test:x":     false,
	} {
		if err := CheckOrigin(origin); (err == nil) != ok {
			t.Errorf("%q: got error %v, want the opposite", origin, err)
		}
		if _, err := New(wholeConfig(t, func(c *Config) { c.TrustedOrigins = []string{origin} })); (err == nil) != ok {
			t.Errorf("trusted_origins %q: got error %v, want the opposite", origin, err)
		}
	}
}
