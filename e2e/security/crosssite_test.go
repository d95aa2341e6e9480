package security

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestS72CrossSiteWrites: what may change something comes from the site's own
// pages, or from no browser at all. A list of trusted origins is compared whole:
// TestUnsafeRequestFromAnotherSiteIsRefused has the cases.
func TestS72CrossSiteWrites(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for header, ok := range map[string]bool{
		"":                             true, // no browser: nobody else can make it send the cookie
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
				reached := w.during(func() { resp = w.raw(t, w.request(method+" /x", lines...)) })
				if ok != (len(reached) == 1) || !ok && resp.Status != http.StatusForbidden {
					t.Errorf("%s: status %d, %d requests reached the app", method, resp.Status, len(reached))
				}
			}
			// The site's own endpoints that change something.
			for _, path := range []string{refresh, logout} {
				if ok {
					continue
				}
				if resp := w.raw(t, w.request("POST "+path, lines...)); resp.Status != http.StatusForbidden || resp.Header["Set-Cookie"] != nil {
					t.Errorf("POST %s: status %d", path, resp.Status)
				}
			}
		})
	}
	b.works(t)
}

// TestS73MethodTricks: only GET, HEAD and OPTIONS in exactly this spelling are
// safe, and not even those if an app may take them for something else.
func TestS73MethodTricks(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	foreign := []string{"Origin: https://evil.test", "Sec-Fetch-Site: cross-site"}
	for _, method := range []string{"get", "post", "PoSt", "FOO", "head", "Options", "PROPFIND", "GET\x0b"} {
		var resp *rawAnswer
		reached := w.during(func() { resp = w.raw(t, w.request(method+" /x", append(foreign, b.cookieLine())...)) })
		if len(reached) != 0 || resp.Status != http.StatusForbidden && resp.Status != http.StatusBadRequest {
			t.Errorf("%s: status %d, %d requests reached the app", method, resp.Status, len(reached))
		}
		reached = w.during(func() { w.refused(t, w.browser().send(t, "FOO", "/x", "")) })
		if len(reached) != 0 {
			t.Errorf("FOO without a session reached the app")
		}
	}
	for _, override := range []string{"X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"} {
		reached := w.during(func() {
			if resp := w.rawGet(t, "/x", append(foreign, override, b.cookieLine())...); resp.Status != http.StatusForbidden {
				t.Errorf("%s: status %d", override, resp.Status)
			}
		})
		if len(reached) != 0 {
			t.Errorf("%s: the app got %v", override, reached)
		}
		// The site's own pages may say so.
		if reached := w.during(func() { w.rawGet(t, "/x", override, "Sec-Fetch-Site: same-origin", b.cookieLine()) }); len(reached) != 1 {
			t.Errorf("%s from the site: %d requests reached the app", override, len(reached))
		}
	}
	// A form's _method is read from a POST.
	if resp := w.raw(t, w.request("POST /x?_method=DELETE", append(foreign, b.cookieLine())...)); resp.Status != http.StatusForbidden {
		t.Errorf("POST with _method: status %d", resp.Status)
	}
}

// TestS74Preflight: who asks from another site what it may send gets no token,
// and learns nothing from us.
func TestS74Preflight(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	ask := []string{"Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"}
	for name, tt := range map[string]struct {
		path   string
		lines  []string
		status int
		passes bool
	}{
		"nobody":              {"/x", ask, http.StatusUnauthorized, false},
		"with a cookie":       {"/x", append(slices.Clone(ask), b.cookieLine()), http.StatusForbidden, false},
		"open page":           {"/static/x", append(slices.Clone(ask), "Authorization: EVIL", "X-User: EVIL"), http.StatusOK, true},
		"open page, a cookie": {"/static/x", append(slices.Clone(ask), b.cookieLine()), http.StatusForbidden, false},
		"session endpoint":    {info, append(slices.Clone(ask), b.cookieLine()), http.StatusMethodNotAllowed, false},
	} {
		t.Run(name, func(t *testing.T) {
			var resp *rawAnswer
			reached := w.during(func() { resp = w.raw(t, w.request("OPTIONS "+tt.path, tt.lines...)) })
			if resp.Status != tt.status || tt.passes != (len(reached) == 1) {
				t.Errorf("status %d, the app got %v", resp.Status, reached)
			}
			for _, r := range reached {
				w.nothingEvil(t, r)
				if r.Values("Authorization") != nil {
					t.Errorf("the app got %q", r.Headers)
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

// TestS75CrossSiteReads: an image or a script on another site's page passes with
// the session, if the browser sends its cookie at all (SameSite). The list has an
// option to keep them back; there is none here, and apps set
// Cross-Origin-Resource-Policy themselves. What we answer ourselves has it.
func TestS75CrossSiteReads(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for _, dest := range []string{"script", "image", "document", "iframe"} {
		reached := w.during(func() {
			resp := w.rawGet(t, "/x", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: "+dest, b.cookieLine())
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: the answer has %s", dest, name)
				}
			}
		})
		if len(reached) != 1 {
			t.Errorf("%s: %d requests reached the app", dest, len(reached))
		}
	}
	resp := w.rawGet(t, info, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script", b.cookieLine())
	if resp.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the session endpoint answers with %v", resp.Header)
	}
}
