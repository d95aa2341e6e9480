package handler

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// quiet turns the log off for a fuzz target: it would grow without limit.
func quiet(s *setup) { s.handler.Logger = zap.NewNop() }

// FuzzLocation: a requested page always leads back to the site as a browser reads
// it: in the Location after the login, in the link of a page, and after that link.
func FuzzLocation(f *testing.F) {
	for _, target := range hostileTargets {
		f.Add(target)
	}
	for _, target := range []string{
		"/%2e%2e//evil.test", "/.%2F/evil.test", "/a/../..//evil.test", "/?//evil.test", "/;@evil.test", "/:80", "/\u2028/evil.test", "/\u00a0/evil.test",
		"https:/\\evil.test", "https:\\\\evil.test", "https://app.test/%0d%0ax", "https://app.test?x", "https://app.test#//evil.test", "/a?b=\"><script>", "/a'b",
	} {
		f.Add(target)
	}
	g := newRig(f, plainOAuth, quiet)
	f.Fuzz(func(t *testing.T, target string) {
		paths := []string{g.handler.returnToPath(target, appOrigin)}
		if r, err := readRequest("GET", target); err == nil {
			paths = append(paths, returnPath(r.URL))
		}
		for _, path := range paths {
			if got, ok := browserOrigin(appOrigin+path, appOrigin); !ok || got != appOrigin {
				t.Errorf("%q: got path %q, which leads to %q, want the site", target, path, got)
			}
			link := loginLink("/oauth2", path, "")
			if got, ok := browserOrigin(link, appOrigin); !ok || got != appOrigin {
				t.Errorf("%q: got link %q, which leads to %q, want the site", target, link, got)
			}
			u, err := url.Parse(link)
			if err != nil || len(u.Query()["return_to"]) != 1 {
				t.Fatalf("%q: got link %q, want one to the login", target, link)
			}
			again := g.handler.returnToPath(u.Query().Get("return_to"), appOrigin)
			if got, ok := browserOrigin(again, appOrigin); !ok || got != appOrigin {
				t.Errorf("%q: got %q from the login, which leads to %q, want the site", target, again, got)
			}
		}
		// The path is also safe without the origin in front of it.
		if got, ok := browserOrigin(paths[0], appOrigin); !ok || got != appOrigin {
			t.Errorf("return_to %q: got path %q, which alone leads to %q, want the site", target, paths[0], got)
		}
	})
}

// FuzzOrigin: a browser goes to the origin that the Handler has accepted, when a
// path is appended to its canonical form.
func FuzzOrigin(f *testing.F) {
	for _, o := range []string{
		appOrigin, "http://localhost:8080", "http://127.0.0.1", "https://APP.test", "https://app.test:443", "https://a@app.test", `https://app.test\evil.test`, "https://app.test/", "https://app.test?x",
		"https://", "https://[::1]:8443", "https://[::1%25eth0]", "http://localhost.evil.test", "http://a.localhost", "https://app.test:", "https://app.test:0443", "https://a%41", "https://a b", "ftp://app.test", "https://a,b.test", "https://a<b",
	} {
		f.Add(o)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		if CheckOrigin(origin) != nil {
			return
		}
		canonical, ok := CanonicalOrigin(origin)
		if again, stable := CanonicalOrigin(canonical); !ok || !stable || again != canonical {
			t.Fatalf("%q: got %q and then %q, want one form", origin, canonical, again)
		}
		u, err := url.Parse(canonical)
		if err != nil {
			t.Fatal(err)
		}
		// A URL without a host leads nowhere.
		got, ok := browserOrigin(canonical+"/x", "https://page.test")
		if !ok {
			return
		}
		b, err := url.Parse(got)
		if err != nil || b.Scheme != u.Scheme || b.Hostname() != strings.ToLower(u.Hostname()) {
			t.Errorf("%q was accepted: got %q in a browser, want the site", origin, got)
		}
	})
}

// FuzzLoginQuery: whatever query a link to the login has, the browser is sent to
// the authorization server with the Handler's own request, or nowhere.
func FuzzLoginQuery(f *testing.F) {
	for _, q := range []string{
		"return_to=%2Fwanted", "prompt=login&login_hint=a%26redirect_uri%3Dx", "iss=https://evil.test&target_link_uri=//evil.test", "scope=admin&redirect_uri=https://evil.test&client_id=x",
		"prompt=none&prompt=login", "prompt=evil", "state=x&code_challenge_method=plain", "login_hint=%0d%0aX:%20y", "return_to=//evil.test", "a=%zz", ";=;", "response_mode=fragment&request=x",
		"acr_values=a&ui_locales=sv%20de&kc_idp_hint=x", "acr_values=a&acr_values=b", "max_age=0", "ui_locales=%ff", "target_link_uri=/x&return_to=",
	} {
		f.Add(q)
	}
	g := newRig(f, plainOAuth, quiet)
	f.Fuzz(func(t *testing.T, query string) {
		r, err := readRequest("GET", "/oauth2/login?"+query)
		if err != nil {
			return
		}
		for _, line := range navigation {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
			t.Fatal(err)
		}
		location, given := w.Header().Get("Location"), r.URL.Query()
		if w.Code == http.StatusBadRequest && location == "" {
			return
		}
		rest, ok := strings.CutPrefix(location, g.as.URL+"/authorize?")
		if w.Code != http.StatusFound || !ok {
			t.Fatalf("%q: got status %d, want 302 to %q", query, w.Code, location)
		}
		q, err := url.ParseQuery(rest)
		if err != nil {
			t.Fatal(err)
		}
		ours := map[string]string{
			"response_type": "code", "client_id": "app", "redirect_uri": appOrigin + "/oauth2/callback", "code_challenge_method": "S256",
			"prompt": given.Get("prompt"), "login_hint": given.Get("login_hint"), "ui_locales": given.Get("ui_locales"), "acr_values": given.Get("acr_values"),
		}
		for name, values := range q {
			want, known := ours[name]
			switch {
			case len(values) != 1:
				t.Errorf("%q: got %s %q, want one value from the request", query, name, values)
			case name == "state" || name == "code_challenge":
				if len(values[0]) < 43 {
					t.Errorf("%q: got %s %q, want one value from the request", query, name, values)
				}
			case !known || values[0] != want || name == "prompt" && !slices.Contains([]string{"none", "login", "consent", "select_account"}, want):
				t.Errorf("%q: %s is %q, want %q", query, name, values, want)
			}
		}
	})
}
