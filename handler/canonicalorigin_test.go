package handler

import (
	"net/url"
	"testing"
)

// canonicalOrigins has origins with the form that browsers send, or "" for what is
// not an origin.
var canonicalOrigins = map[string]string{
	"https://app.test":               "https://app.test",
	"https://App.Test":               "https://app.test",
	"HTTPS://app.test":               "https://app.test",
	"https://app.test:443":           "https://app.test",
	"HTTPS://APP.TEST:443":           "https://app.test",
	"https://app.test:0443":          "https://app.test",
	"https://app.test:":              "https://app.test",
	"https://app.test:80":            "https://app.test:80",
	"https://app.test:8443":          "https://app.test:8443",
	"https://app.test:08443":         "https://app.test:8443",
	"http://app.test:80":             "http://app.test",
	"http://app.test:443":            "http://app.test:443",
	"http://LOCALHOST":               "http://localhost",
	"http://LocalHost:8080":          "http://localhost:8080",
	"http://127.0.0.1:80":            "http://127.0.0.1",
	"https://[::1]:443":              "https://[::1]",
	"https://[2001:DB8::A]":          "https://[2001:db8::a]",
	"https://[0:0:0:0:0:0:0:1]:8443": "https://[::1]:8443",
	"https://[::ffff:192.0.2.1]":     "https://[::ffff:c000:201]",
	"https://Bücher.test":            "https://xn--bcher-kva.test",
	"https://XN--Bcher-kva.test":     "https://xn--bcher-kva.test",
	"https://app_1.test":             "https://app_1.test",
	"https://app.test.":              "https://app.test.", // another origin to browsers, too
	"https://app.test/":              "",
	"https://app.test/x":             "",
	"https://app.test?x":             "",
	"https://app.test#":              "",
	"https://u@app.test":             "",
	"https://app.test:65536":         "",
	"https://app.test:-1":            "",
	"https://app.test:443:443":       "",
	"https://[::1":                   "",
	"https://[::1%25eth0]":           "",
	"https://":                       "",
	"https://:443":                   "",
	"//app.test":                     "",
	"app.test":                       "",
	"null":                           "",
	"":                               "",
	" https://app.test":              "",
	"https://app.test ":              "",
	"https://app\x00.test":           "",
	"https://app.test, https://x":    "",
	"https://\xff.test":              "",
}

func TestCanonicalOriginIsTheOneBrowsersSend(t *testing.T) {
	for origin, want := range canonicalOrigins {
		got, ok := CanonicalOrigin(origin)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", origin, got, ok, want)
		}
		if again, ok := CanonicalOrigin(want); want != "" && (again != want || !ok) {
			t.Errorf("%q: got %q, %v the second time, want the same", origin, again, ok)
		}
	}
}

// TestCanonicalOriginsCostNothing: every request that changes state compares two.
func TestCanonicalOriginsCostNothing(t *testing.T) {
	for _, origin := range []string{"https://app.test", "http://localhost:8080"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = CanonicalOrigin(origin) }); n != 0 {
			t.Errorf("%s: got %v allocations, want none", origin, n)
		}
	}
}

// TestSpellingOfTheOriginDoesNotMatter: of the site's own origin, of the trusted
// ones, and of the one to which a login leads.
func TestSpellingOfTheOriginDoesNotMatter(t *testing.T) {
	for _, origin := range []string{"https://App.Test", "https://app.test:443", "HTTPS://APP.TEST:0443"} {
		g := newRig(t, plainOAuth, func(s *setup) {
			s.origin, s.handler.TrustedOrigins = origin, []string{"https://Admin.test:443"}
		})
		b := g.browser()
		at := b.start("/oauth2/login?return_to=" + url.QueryEscape(origin+"/x?y"))
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.Query().Get("redirect_uri"); got != appOrigin+"/oauth2/callback" {
			t.Errorf("%s: got redirect_uri %s, want one of %s", origin, got, appOrigin)
		}
		b.wantAppAt(b.open("/oauth2/login?return_to="+url.QueryEscape(origin+"/x?y")), "/x?y")
		cookie := "Cookie: " + sessionCookie + "=" + g.session("")
		for _, header := range []string{"Origin: https://app.test", "Origin: https://admin.test"} {
			if a := g.post("/api", cookie, header); a.relayed != 1 {
				t.Errorf("%s: %s: got status %d, want the app's answer", origin, header, a.status)
			}
		}
		for _, header := range []string{"Origin: http://app.test", "Origin: https://app.test:8443"} {
			if a := g.post("/api", cookie, header); a.status != 403 {
				t.Errorf("%s: %s: got status %d, want 403", origin, header, a.status)
			}
		}
	}
}
