package handler

import (
	"strings"
	"testing"
)

// browserOrigin returns the origin to which a browser goes from a reference on a
// page: scheme and host, and a port other than the scheme's default. It follows the
// states of the basic URL parser of the URL Standard for pages on http or https, as
// far as they decide about the origin. Unlike net/url it therefore accepts all that
// a browser accepts. ok is false if a browser finds no URL. The origin is "null"
// for a URL such as javascript:.
func browserOrigin(reference, page string) (origin string, ok bool) {
	base, _ := strings.CutSuffix(page, "/")
	s := strings.TrimFunc(reference, func(c rune) bool { return c <= ' ' })
	s = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(s)
	baseScheme, _, _ := strings.Cut(base, ":")
	scheme, rest := browserScheme(s)
	switch {
	case scheme == "": // no scheme state, relative state
		rest = s
	case scheme != "http" && scheme != "https":
		return "null", true
	case scheme == baseScheme && !hasTwoSlashes(rest):
		// special relative or authority state: https:x and https:/x are relative
	default: // special authority slashes state, and the one that ignores slashes
		return browserAuthority(scheme, rest)
	}
	if len(rest) >= 2 && isSlash(rest[0]) && isSlash(rest[1]) { // relative slash state
		return browserAuthority(baseScheme, rest)
	}
	return base, true
}

// browserScheme is the scheme state: letters first, then some more, and a colon.
func browserScheme(s string) (scheme, rest string) {
	for i := range len(s) {
		c := s[i] | 0x20
		switch {
		case 'a' <= c && c <= 'z':
		case i > 0 && (strings.IndexByte("+-.", s[i]) >= 0 || '0' <= s[i] && s[i] <= '9'):
		case i > 0 && s[i] == ':':
			return strings.ToLower(s[:i]), s[i+1:]
		default:
			return "", s
		}
	}
	return "", s
}

// browserAuthority reads the authority that follows any number of slashes.
func browserAuthority(scheme, rest string) (string, bool) {
	rest = strings.TrimLeft(rest, `/\`)
	if end := strings.IndexAny(rest, `/\?#`); end >= 0 {
		rest = rest[:end]
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	host, port := rest, ""
	if colon := strings.LastIndexByte(rest, ':'); colon >= 0 && strings.IndexByte(rest[colon:], ']') < 0 {
		host, port = rest[:colon], rest[colon+1:]
	}
	if strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	host = strings.ToLower(browserUnescape(host))
	if host == "" || strings.ContainsAny(host, "\x00\t\n\r #/<>?@\\^|%\x7f") {
		return "", false // forbidden domain code points
	}
	port = strings.TrimLeft(port, "0")
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return scheme + "://" + host, true
	}
	return scheme + "://" + host + ":" + port, true
}

// browserUnescape decodes percent-encoded bytes, and keeps invalid ones.
func browserUnescape(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			high, low := strings.IndexByte(digits, s[i+1]|0x20), strings.IndexByte(digits, s[i+2]|0x20)
			if high >= 0 && low >= 0 {
				b.WriteByte(byte(high<<4 | low))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isSlash(c byte) bool { return c == '/' || c == '\\' }

// hasTwoSlashes reports whether a reference begins with //. For other schemes, or
// with backslashes after the page's own, the next state of the parser is more
// lenient.
func hasTwoSlashes(s string) bool { return strings.HasPrefix(s, "//") }

// The examples of the URL Standard and its tests show that browserOrigin finds what
// a browser finds.
func TestBrowserOriginFollowsTheURLStandard(t *testing.T) {
	const page = "https://app.test"
	for _, tt := range []struct{ reference, want string }{
		{"", page}, {"x", page}, {"/x", page}, {"?x", page}, {"#x", page}, {"/..//evil.test", page}, {"https:x", page}, {"https:/x", page}, {`https:\x`, page},
		{"//evil.test", "https://evil.test"}, {`/\evil.test`, "https://evil.test"}, {`\\evil.test/x`, "https://evil.test"}, {`\/evil.test`, "https://evil.test"},
		{"///evil.test", "https://evil.test"}, {"/\t/evil.test", "https://evil.test"}, {"\x00 //evil.test", "https://evil.test"}, {"/\n\r/evil.test?x", "https://evil.test"},
		{"https://evil.test", "https://evil.test"}, {"HTTPS:///evil.test", "https://evil.test"}, {"http:evil.test", "http://evil.test"}, {"ht\ntp:/evil.test", "http://evil.test"},
		{"https://app.test@evil.test/", "https://evil.test"}, {`https://evil.test\@app.test/`, "https://evil.test"}, {"https://app.test:443/", page}, {"https://app.test:0443", page},
		{"https://app.test:8443/", "https://app.test:8443"}, {"https://APP.%74est", page}, {"https://[::1]:8/", "https://[::1]:8"}, {"https://app.test/@evil.test", page},
		{"https://app.test:x/", ""}, {"https://", ""}, {"//a b", ""}, {"//a%2fb", ""},
		{"javascript:alert(1)", "null"}, {"data:,x", "null"}, {"java\nscript:x", "null"}, {"1javascript:x", page}, {"/javascript:x", page},
	} {
		if got, ok := browserOrigin(tt.reference, page); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q leads to %q, want %q", tt.reference, got, tt.want)
		}
	}
}
