package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// splitByPath takes matcher sets apart. Without holds each set without the
// matchers that may look at the path: a request that meets none of them is
// matched on no path. Whole holds the sets that have no such matcher: a request
// that meets one of them is matched on every path.
func splitByPath(sets caddyhttp.MatcherSets) (without, whole caddyhttp.MatcherSets) {
	for _, set := range sets {
		kept := caddyhttp.MatcherSet{}
		for _, m := range set {
			if ignoresPath(m) {
				kept = append(kept, m)
			}
		}
		without = append(without, kept)
		if len(kept) == len(set) {
			whole = append(whole, set)
		}
	}
	return without, whole
}

// ignoresPath reports whether a matcher is known not to depend on the path. A
// placeholder may stand for it, and headers, queries and variables may have been
// set for it by directives that run before.
func ignoresPath(matcher any) bool {
	switch m := matcher.(type) {
	case *caddyhttp.MatchHost:
		return !strings.Contains(strings.Join(*m, ""), "{")
	case *caddyhttp.MatchMethod, *caddyhttp.MatchProtocol, *caddyhttp.MatchRemoteIP, *caddyhttp.MatchClientIP, *caddyhttp.MatchTLS:
		return true
	case *caddyhttp.MatchNot:
		for _, set := range m.MatcherSets {
			for _, inner := range set {
				if !ignoresPath(inner) {
					return false
				}
			}
		}
		return true
	}
	return false
}
