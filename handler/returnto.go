package handler

import (
	"net/url"
	"path"
	"strings"
)

// maxReturnPath bounds what a login remembers of the wanted URL: more would
// not fit into a cookie beside the rest.
const maxReturnPath = 2048

// returnPath rebuilds path and query of a URL that was asked for. The result
// begins with one slash, is plain ASCII, and is appended to an origin before
// anybody follows it: so it leads to this site whatever it contains, also
// where browsers and Go read a path such as //host or /\host differently.
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

// isPlainPath reports whether a path is one that browsers send as it stands.
func isPlainPath(p string) bool {
	return len(p) > 1 && p[0] == '/' && path.Clean(p) == p && !strings.ContainsAny(p, "?#%;{}*") && escapeUnsafe(p) == p
}

// cleanPath escapes what has no place in a path.
func cleanPath(escaped string) string {
	if !strings.HasPrefix(escaped, "/") {
		return "/"
	}
	return escapeUnsafe(escaped)
}

// escapeUnsafe percent-encodes what could end a header, an attribute or the path,
// and what browsers read as a slash. What a browser asks for comes out as it went
// in.
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

// wantedPath reads a `return_to` parameter: a path of this site, or a whole URL
// on it. Everything else, and our own endpoints, become "/".
func (h *Handler) returnToPath(returnTo, origin string) string {
	if rest, ok := strings.CutPrefix(returnTo, origin); ok && (rest == "" || strings.HasPrefix(rest, "/")) {
		returnTo = rest
	}
	// One slash, and neither a second nor what browsers take for one.
	if !strings.HasPrefix(returnTo, "/") || len(returnTo) > 1 && strings.IndexByte("/\\\t\r\n", returnTo[1]) >= 0 {
		return "/"
	}
	u, err := url.Parse(returnTo)
	if err != nil || u.Host != "" || u.Scheme != "" || u.User != nil {
		return "/"
	}
	u.Fragment = ""
	// As the browser will ask for it, which resolves dots first.
	if resolved := path.Clean(u.Path); resolved == h.PathPrefix || strings.HasPrefix(resolved, h.PathPrefix+"/") {
		return "/"
	}
	return returnPath(u)
}
