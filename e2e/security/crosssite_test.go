package security

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestS72CrossSiteWritesAreRefused: an unsafe request must come from the site's own pages,
// or from a client that is not a browser. The handler package tests the option
// trusted_origins.
func TestS72CrossSiteWritesAreRefused(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for header, ok := range map[string]bool{
		"":                             true, // not a browser: another site cannot make it send the cookie
		"Sec-Fetch-Site: cross-site":   false,
		"Sec-Fetch-Site: same-site":    false,
		"Sec-Fetch-Site: none":         true,
		"Sec-Fetch-Site: same-origin":  true,
		"Origin: https://evil.test":    false,
		"Origin: null":                 false,
		"Origin: http://" + w.host:     false,
		"Origin: https://" + siteName:  false,
		"Origin: " + w.site:            true,
		"Origin: https://x." + w.host:  false,
		"Origin: " + w.site + "/":      false,
		"Origin: " + w.site + ", null": false,
		"Sec-Fetch-Site: same-origin|Origin: https://evil.test":                 false,
		"Sec-Fetch-Site: none|Origin: https://evil.test":                        false,
		"Sec-Fetch-Site: same-origin|Origin: " + w.site:                         true,
		"Sec-Fetch-Site: cross-site|Origin: " + w.site:                          false,
		"Origin: " + w.site + "|Origin: https://evil.test":                      false,
		"Origin: https://evil.test|Sec-Fetch-Mode: navigate|Accept: text/html":  false,
		"Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-User: 1": false,
	} {
		t.Run(header, func(t *testing.T) {
			lines := []string{b.cookieLine()}
			if header != "" {
				lines = append(lines, strings.Split(header, "|")...)
			}
			for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
				var resp *rawAnswer
				reached := w.appRequests(func() { resp = w.raw(t, w.request(method+" /x", lines...)) })
				if ok != (len(reached) == 1) || !ok && resp.Status != http.StatusForbidden {
					t.Errorf("%s: got status %d, and the app got %d requests; want passing: %v", method, resp.Status, len(reached), ok)
				}
			}
			// These endpoints of the module change state.
			for _, path := range []string{refresh, logout} {
				if ok {
					continue
				}
				if resp := w.raw(t, w.request("POST "+path, lines...)); resp.Status != http.StatusForbidden || resp.Header["Set-Cookie"] != nil {
					t.Errorf("POST %s: got status %d, want 403 without cookies", path, resp.Status)
				}
			}
		})
	}
	b.checkSession(t)
}

// TestS73OnlyExactSafeMethodsAreSafe: only GET, HEAD and OPTIONS in this spelling count as
// safe. A safe method with a method override header counts as unsafe.
func TestS73OnlyExactSafeMethodsAreSafe(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	crossSite := []string{"Origin: https://evil.test", "Sec-Fetch-Site: cross-site"}
	for _, method := range []string{"get", "post", "PoSt", "FOO", "head", "Options", "PROPFIND", "GET\x0b"} {
		var resp *rawAnswer
		reached := w.appRequests(func() { resp = w.raw(t, w.request(method+" /x", append(crossSite, b.cookieLine())...)) })
		if len(reached) != 0 || resp.Status != http.StatusForbidden && resp.Status != http.StatusBadRequest {
			t.Errorf("%s: got status %d, and the app got %d requests; want 403 or 400, and none", method, resp.Status, len(reached))
		}
		reached = w.appRequests(func() { w.checkRefused(t, w.browser().send(t, "FOO", "/x", "")) })
		if len(reached) != 0 {
			t.Errorf("the app got FOO without a session")
		}
	}
	for _, override := range []string{"X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"} {
		reached := w.appRequests(func() {
			if resp := w.rawGet(t, "/x", append(crossSite, override, b.cookieLine())...); resp.Status != http.StatusForbidden {
				t.Errorf("%s: got status %d, want 403", override, resp.Status)
			}
		})
		if len(reached) != 0 {
			t.Errorf("%s: the app got %v, want no request", override, reached)
		}
		// The site's own pages may override the method.
		if reached := w.appRequests(func() { w.rawGet(t, "/x", override, "Sec-Fetch-Site: same-origin", b.cookieLine()) }); len(reached) != 1 {
			t.Errorf("%s from the site: the app got %d requests, want 1", override, len(reached))
		}
	}
	// Frameworks read a form's _method from a POST, which is unsafe already.
	if resp := w.raw(t, w.request("POST /x?_method=DELETE", append(crossSite, b.cookieLine())...)); resp.Status != http.StatusForbidden {
		t.Errorf("POST with _method: got status %d, want 403", resp.Status)
	}
}

// TestS74PreflightGetsNoToken: a CORS preflight from another site carries no token to the
// app and gets no CORS header from the module.
func TestS74PreflightGetsNoToken(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	ask := []string{"Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"}
	for name, tt := range map[string]struct {
		path   string
		lines  []string
		status int
		passes bool
	}{
		"no session":              {"/x", ask, http.StatusUnauthorized, false},
		"with a cookie":           {"/x", append(slices.Clone(ask), b.cookieLine()), http.StatusForbidden, false},
		"optional page":           {"/static/x", append(slices.Clone(ask), "Authorization: EVIL", "X-User: EVIL"), http.StatusOK, true},
		"optional page, a cookie": {"/static/x", append(slices.Clone(ask), b.cookieLine()), http.StatusForbidden, false},
		"session endpoint":        {sessionInfo, append(slices.Clone(ask), b.cookieLine()), http.StatusMethodNotAllowed, false},
	} {
		t.Run(name, func(t *testing.T) {
			var resp *rawAnswer
			reached := w.appRequests(func() { resp = w.raw(t, w.request("OPTIONS "+tt.path, tt.lines...)) })
			if resp.Status != tt.status || tt.passes != (len(reached) == 1) {
				t.Errorf("got status %d, and the app got %v; want status %d, passing: %v", resp.Status, reached, tt.status, tt.passes)
			}
			for _, r := range reached {
				w.checkNoEvilHeader(t, r)
				if r.Values("Authorization") != nil {
					t.Errorf("the app got headers %q, want no Authorization", r.Headers)
				}
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("the answer has %s", name)
				}
			}
		})
	}
}

// TestS75CrossSiteSubresourcePasses: an image or script request of another site passes
// with the session if the browser sends the cookie, which SameSite decides. The module has
// no option to block it; apps set Cross-Origin-Resource-Policy themselves. The module's
// own answers have that header.
func TestS75CrossSiteSubresourcePasses(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for _, dest := range []string{"script", "image", "document", "iframe"} {
		reached := w.appRequests(func() {
			resp := w.rawGet(t, "/x", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: "+dest, b.cookieLine())
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: the answer has %s", dest, name)
				}
			}
		})
		if len(reached) != 1 {
			t.Errorf("%s: the app got %d requests, want 1", dest, len(reached))
		}
	}
	resp := w.rawGet(t, sessionInfo, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script", b.cookieLine())
	if resp.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("session endpoint: got headers %v", resp.Header)
	}
}
