package caddymodule

import (
	"fmt"
	"strings"

	"go.uber.org/zap"
)

// nestedWarning describes two nested logins that may work for some requests.
type nestedWarning struct{ outer, inner, exclude string }

// provisioned records the login of a directive, and refuses a directive that is nested in
// one of another login: no request could have both sessions, so each would be answered
// with an error. Where only some requests are concerned, a warning follows at start.
func (n *nesting) provisioned(text string, s sharing) error {
	n.logins[text] = s
	for pair, area := range n.pairs {
		if pair.outer != text && pair.inner != text {
			continue
		}
		outer, ok := n.logins[pair.outer]
		inner, innerOK := n.logins[pair.inner]
		if !ok || !innerOK {
			continue
		}
		delete(n.pairs, pair)
		if outer.sameSite(inner) {
			continue
		}
		w := nestedWarning{outer.nestedLogin(), inner.nestedLogin(), area.exclusion()}
		if !area.all {
			n.warnings = append(n.warnings, w)
			continue
		}
		return fmt.Errorf("an oauth_session directive (%s) is nested in another one with a different login (%s): each of its requests would need both sessions, which no request can have. "+
			"Exclude its requests from the outer directive: %s. Or give both directives the same login, and let the inner one only add its require", w.inner, w.outer, w.exclude)
	}
	return nil
}

// sameSite reports whether two handlers would take each other's sessions for their own
// (see handler.Handler.sameSite).
func (s sharing) sameSite(other sharing) bool {
	return s.authority == other.authority && s.client == other.client && s.site == other.site
}

// nestedLogin describes a login for an error or a warning.
func (s sharing) nestedLogin() string {
	return fmt.Sprintf("client_id %s at %s, cookie %s, path_prefix %s", s.client, s.authority, s.cookie.name, s.place.prefix)
}

// exclusion says how to exclude an area from a directive's matcher.
func (a nestedArea) exclusion() string {
	if len(a.paths) == 0 {
		return "oauth_session @outer { … } with a matcher such as @outer not path /area/*"
	}
	return "oauth_session @outer { … } with the matcher @outer not path " + strings.Join(a.paths, " ")
}

// warnOfNestedLogins logs nested logins that may be meant so.
func (a *App) warnOfNestedLogins() {
	for _, w := range a.nesting.warnings {
		a.logger.Warn("an oauth_session directive is nested in another one with a different login: a request that needs both sessions is answered with status 500. Exclude it from the matcher of the outer directive",
			zap.String("outer", w.outer), zap.String("inner", w.inner), zap.String("exclude", w.exclude))
	}
}
