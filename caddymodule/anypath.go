package caddymodule

import (
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// splitByPath splits matcher sets by whether they may depend on the path. The result
// without has each set without the matchers that may: a request that matches none of
// these sets is matched on no path. The result whole has the sets with no such matcher:
// a request that matches one of these sets is matched on every path.
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

// ignoresPath reports whether a matcher certainly does not depend on the path. A
// placeholder may contain the path. Earlier directives may have set headers, queries and
// variables from it.
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
