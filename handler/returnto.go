package handler

import (
	"net/url"
	"path"
	"strings"
)

// maxReturnPath bounds the path that a login returns to, in bytes. A longer one
// would not fit into a cookie.
const maxReturnPath = 2048

// returnPath rebuilds path and query of a requested URL. The result is always
// appended to the site's origin, begins with one slash, and is plain ASCII. It
// therefore leads to this site whatever it contains. That also holds for paths such
// as //host and /\host, which browsers and Go parse differently.
func returnPath(u *url.URL) string {
	escaped := u.RawPath
	if p, err := url.PathUnescape(escaped); escaped == "" || err != nil || p != u.Path {
		escaped = u.EscapedPath()
	}
	wanted := cleanPath(escaped)
	if len(wanted) > maxReturnPath {
		return "/"
	}
	if u.RawQuery == "" && !u.ForceQuery {
		return wanted
	}
	if full := wanted + "?" + escapeUnsafe(u.RawQuery); len(full) <= maxReturnPath {
		return full
	}
	return wanted
}

// isPlainPath reports whether browsers send a path unchanged, byte for byte.
func isPlainPath(p string) bool {
	return len(p) > 1 && p[0] == '/' && path.Clean(p) == p && !strings.ContainsAny(p, "?#%;{}*") && escapeUnsafe(p) == p
}

// cleanPath escapes the characters that must not occur in a path.
func cleanPath(escaped string) string {
	if !strings.HasPrefix(escaped, "/") {
		return "/"
	}
	return escapeUnsafe(escaped)
}

// escapeUnsafe percent-encodes characters that could end a header, an attribute or
// a path, and those that browsers read as a slash. A URL that a browser has sent
// stays unchanged.
func escapeUnsafe(s string) string {
	const hex = "0123456789ABCDEF"
	unsafe := func(c byte) bool {
		return c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\#", c) >= 0
	}
	n := 0
	for i := range len(s) {
		if unsafe(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; unsafe(c) {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// cutOrigin returns what follows the site's origin in a URL. It reports false for a
// URL of another origin, and for a text that is not an absolute URL.
func cutOrigin(text, origin string) (rest string, ok bool) {
	begin := strings.Index(text, "://")
	if begin < 0 {
		return "", false
	}
	begin += len("://")
	end := len(text)
	if i := strings.IndexAny(text[begin:], "/?#"); i >= 0 {
		end = begin + i
	}
	canonical, ok := CanonicalOrigin(text[:end])
	return text[end:], ok && canonical == origin
}

// returnToPath reads a `return_to` parameter: a path of this site, or a URL of this
// site's origin. Any other value leads to "/": it could be an open redirect. So do
// the endpoints, which could log the user out or begin an endless chain of logins.
// The origin must be canonical.
func (h *Handler) returnToPath(returnTo, origin string) string {
	if rest, ok := cutOrigin(returnTo, origin); ok {
		returnTo = rest
		if strings.HasPrefix(rest, "?") {
			returnTo = "/" + rest
		}
	}
	// Browsers read a second slash, a backslash, or a slash after white space as
	// the beginning of a host.
	if !strings.HasPrefix(returnTo, "/") || len(returnTo) > 1 && strings.IndexByte("/\\\t\r\n", returnTo[1]) >= 0 {
		return "/"
	}
	u, err := url.Parse(returnTo)
	if err != nil || u.Host != "" || u.Scheme != "" || u.User != nil {
		return "/"
	}
	u.Fragment = ""
	// A browser resolves dots before it sends the request.
	if resolved := path.Clean(u.Path); resolved == h.PathPrefix || strings.HasPrefix(resolved, h.PathPrefix+"/") {
		return "/"
	}
	return returnPath(u)
}
