package handler

import (
	"net/http"
	"strings"
)

// cachePolicy selects how shared caches may use an app's answer. Such a cache sees
// the session cookie instead of an Authorization header, so it does not apply RFC
// 9111, section 3.5, by itself. Decision 0018 gives the reasons.
type cachePolicy int

const (
	// cacheAsAnswered leaves the answer unchanged: it does not depend on a session.
	cacheAsAnswered cachePolicy = iota
	// cachePrivate marks the answer to a request with a session as private.
	cachePrivate
	// cacheByCookie adds "Vary: Cookie" to the answer to a request without a
	// session. A request with a session may get another answer at the same URL.
	cacheByCookie
)

// applyCachePolicy adds headers for shared caches to an answer. It changes nothing
// if the app has decided itself whether caches may share the answer.
//
// A 304 gets no field that the app left out: a cache replaces the fields of its
// stored answer by those of the 304 (RFC 9111, section 3.2), so a new Cache-Control
// would remove the app's no-cache or max-age. The stored answer has the module's
// fields already.
func (g *cookieGuard) applyCachePolicy(status int) {
	if g.disabled || g.policy == cacheAsAnswered {
		return
	}
	lines := g.header["Cache-Control"]
	if lines != nil && decidesSharing(lines) {
		return
	}
	revalidated := status == http.StatusNotModified
	switch {
	case g.policy == cachePrivate && revalidated && lines == nil:
	case g.policy == cachePrivate:
		g.private[0] = "private"
		if directives := strings.Join(lines, ", "); directives != "" {
			g.private[0] = directives + ", private"
		}
		g.header["Cache-Control"] = g.private[:]
	case g.request.Method == http.MethodGet || g.request.Method == http.MethodHead:
		if vary := g.header["Vary"]; !(revalidated && vary == nil) && !hasMember(vary, "Cookie") && !hasMember(vary, "*") {
			g.header["Vary"] = append(vary[:len(vary):len(vary)], "Cookie")
		}
	}
}

// decidesSharing reports whether Cache-Control says by itself whether a shared
// cache may use the answer to a request with Authorization for other requests. RFC
// 9111, section 3.5, also names must-revalidate. It is not accepted here: apps set
// it to be strict, and not to share.
func decidesSharing(lines []string) bool {
	for _, line := range lines {
		for line != "" {
			var name, value string
			name, value, line = nextDirective(line)
			switch strings.ToLower(name) {
			case "public", "no-store":
				return true
			case "s-maxage":
				if value != "" {
					return true
				}
			case "private":
				// With field names, private applies to those fields only.
				if value == "" {
					return true
				}
			}
		}
	}
	return false
}

// nextDirective returns the first directive of a Cache-Control line, and the rest
// of the line. A comma in a quoted value does not end a directive.
func nextDirective(line string) (name, value, rest string) {
	quoted, escaped := false, false
	end := strings.IndexFunc(line, func(c rune) bool {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		}
		return c == ',' && !quoted
	})
	directive := line
	if end >= 0 {
		directive, rest = line[:end], line[end+1:]
	}
	name, value, _ = strings.Cut(directive, "=")
	return strings.Trim(name, " \t"), strings.Trim(value, " \t"), rest
}
