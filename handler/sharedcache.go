package handler

import (
	"net/http"
	"strings"
)

// sharing says which requests a shared cache in front of us may answer with what
// an app has answered. Such a cache sees the session's cookie in place of the
// Authorization header, and so does not apply RFC 9111, section 3.5. Decision
// 0018 gives the reasons.
type cachePolicy int

const (
	// sharedAsAnswered leaves the answer as the app gave it: it does not depend
	// on a session.
	cacheAsAnswered cachePolicy = iota
	// sharedByNobody is for an answer to a request with a session.
	cachePrivate
	// sharedByCookie is for an answer to a request without a session, at a path
	// where one with a session may get another answer.
	cacheByCookie
)

// limitSharing adds to the header of an answer what a shared cache has to know.
// An app that has given an answer to all caches, or to none, keeps its word.
func (g *cookieGuard) applyCachePolicy() {
	if g.disabled || g.policy == cacheAsAnswered {
		return
	}
	lines := g.header["Cache-Control"]
	if lines != nil && decidesSharing(lines) {
		return
	}
	switch {
	case g.policy == cachePrivate:
		g.private[0] = "private"
		if directives := strings.Join(lines, ", "); directives != "" {
			g.private[0] = directives + ", private"
		}
		g.header["Cache-Control"] = g.private[:]
	case g.request.Method == http.MethodGet || g.request.Method == http.MethodHead:
		if vary := g.header["Vary"]; !hasMember(vary, "Cookie") && !hasMember(vary, "*") {
			g.header["Vary"] = append(vary[:len(vary):len(vary)], "Cookie")
		}
	}
}

// decidesSharing reports whether Cache-Control says by itself whether a shared
// cache may use the answer to a request with Authorization for other requests.
// RFC 9111, section 3.5, also names must-revalidate; that is not taken for a
// wish to share, because apps write it to be strict.
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
				// With field names it concerns only those fields.
				if value == "" {
					return true
				}
			}
		}
	}
	return false
}

// nextDirective cuts the first directive off a Cache-Control line. A comma in a
// quoted value does not end it.
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
