package security

import (
	"strings"
	"testing"
)

// browserOrigin returns the origin that a browser opens for a Location of the site, in
// lower case; for a scheme without a host it returns "scheme:". It follows the WHATWG URL
// standard where that differs from RFC 3986: ignored white space, backslashes as slashes,
// any number of slashes before the host.
func (w *world) browserOrigin(location string) string {
	s := strings.Trim(location, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f ")
	s = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(s)
	scheme, rest, special := "https", s, true
	if name, after, ok := cutScheme(s); ok {
		special = name == "http" || name == "https" || name == "ws" || name == "wss" || name == "ftp"
		if !special {
			return name + ":"
		}
		rest = strings.ReplaceAll(after, `\`, "/")
		if name == scheme && !strings.HasPrefix(rest, "//") {
			return w.site // a relative reference with a scheme
		}
		scheme, rest = name, "//"+strings.TrimLeft(rest, "/")
	}
	rest = strings.ReplaceAll(rest, `\`, "/")
	if !strings.HasPrefix(rest, "//") {
		return w.site
	}
	authority := strings.TrimLeft(rest, "/")
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority = authority[:i]
	}
	return scheme + "://" + strings.ToLower(authority[strings.LastIndexByte(authority, '@')+1:])
}

// cutScheme splits off a scheme and returns it in lower case.
func cutScheme(s string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(s, ":")
	scheme = strings.ToLower(scheme)
	if !ok || scheme == "" || scheme[0] < 'a' || scheme[0] > 'z' ||
		strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return "", s, false
	}
	return scheme, rest, true
}

// checkOwnSite checks that a Location leads to the site itself.
func (w *world) checkOwnSite(t testing.TB, location string) {
	t.Helper()
	if got := w.browserOrigin(location); got != w.site {
		t.Errorf("Location %q leads to %s, want the site", location, got)
	}
}

// TestBrowserOrigin: the reader of Location headers agrees with browsers.
func TestBrowserOrigin(t *testing.T) {
	w := &world{site: "https://app.test:8443"}
	for location, want := range map[string]string{
		"/": "https://app.test:8443", "": "https://app.test:8443", "x": "https://app.test:8443",
		"/a//b": "https://app.test:8443", "?x=//evil.test": "https://app.test:8443", "/%2f/evil.test": "https://app.test:8443",
		"HTTPS://App.Test:8443/x": "https://app.test:8443", "https:evil.test": "https://app.test:8443",
		"//evil.test": "https://evil.test", "///evil.test": "https://evil.test", `/\evil.test`: "https://evil.test",
		`\\evil.test`: "https://evil.test", "/\t/evil.test": "https://evil.test", " //evil.test": "https://evil.test",
		"//app.test@evil.test/": "https://evil.test", "https://evil.test?x": "https://evil.test",
		"http:evil.test": "http://evil.test", `https:\\evil.test`: "https://evil.test", "https:////evil.test": "https://evil.test",
		"JavaScript:alert(1)": "javascript:", "data:text/html,x": "data:", "java\nscript:x": "javascript:",
	} {
		if got := w.browserOrigin(location); got != want {
			t.Errorf("Location %q: got %s, want %s", location, got, want)
		}
	}
}
