package handler

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Requirement is a claim that a session must have with one of some values. If the
// claim is a list, one of its elements must have the value. Values are compared
// byte for byte; true, false and numbers are compared by their JSON text.
type Requirement struct {
	// Claim is the name of a claim, or a path of names joined with dots, such as
	// realm_access.roles.
	Claim  string
	Values []string
}

// unmetRequirement returns the first requirement that claims do not meet, or nil. A claim
// that is missing, or that cannot be compared, meets none.
func (h *Handler) unmetRequirement(claims json.RawMessage) *Requirement {
	for i, req := range h.Require {
		value, ok := findClaim(claims, req.Claim)
		if !ok || !matches(value, req.Values) {
			return &h.Require[i]
		}
	}
	return nil
}

// findClaim finds a claim by its name, or by a path of names joined with dots.
func findClaim(claims json.RawMessage, name string) (json.RawMessage, bool) {
	var object map[string]json.RawMessage
	if len(claims) == 0 || json.Unmarshal(claims, &object) != nil {
		return nil, false
	}
	if v, ok := object[name]; ok {
		return v, true
	}
	// A name may itself contain dots (https://example.com/roles): try every
	// position.
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if inner, ok := object[name[:i]]; ok {
			if v, ok := findClaim(inner, name[i+1:]); ok {
				return v, true
			}
		}
	}
	return nil, false
}

func matches(value json.RawMessage, wanted []string) bool {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		list = []json.RawMessage{value}
	}
	for _, v := range list {
		if text, ok := ClaimText(v); ok && slices.Contains(wanted, text) {
			return true
		}
	}
	return false
}

// ClaimText returns a string, number or boolean as text. It reports false for a
// list, an object and null.
func ClaimText(value json.RawMessage) (string, bool) {
	var s string
	if json.Unmarshal(value, &s) == nil && len(value) > 0 && value[0] == '"' {
		return s, true
	}
	text := strings.TrimSpace(string(value))
	if text == "" || text == "null" || text[0] == '{' || text[0] == '[' || text[0] == '"' {
		return "", false
	}
	return text, true
}

// forbidden is the answer to a request without a required claim. The page must
// offer to sign out or to use another account: otherwise the user could not get out
// of this state.
func (h *Handler) forbidden(r *http.Request, s *keeper.Session, unmet *Requirement) *Error {
	e := &Error{
		Status: http.StatusForbidden, Code: "forbidden", Title: "No access",
		Detail: "You are signed in, but your account may not use this page.",
		Retry:  h.originalRequestURI(r), SwitchAccount: true,
		audit: &AuditEvent{Kind: AuditAccessDenied, Session: s.ID, User: s.Subject, Claim: unmet.Claim, Found: foundClaim(s.Claims, unmet.Claim)},
	}
	h.logDenied(r, e.audit, unmet)
	if unmet.Claim == groupsClaim && hasGroupsOverage(s.Claims) {
		e.Code = "groups_overage"
		e.Detail = "You are signed in, but you are in so many groups that the sign-in service does not list them. " +
			"This site cannot see whether you may use this page. Its operator has to correct that."
		if h.logLimiter.allow(e.Code) {
			h.log(r).Warn("a user was refused because the authorization server leaves the groups out: the user is in too many of them (groups overage)",
				zap.String("remedy", "at Entra ID, send only the groups that are assigned to the application (groupMembershipClaims: ApplicationGroup), "+
					"or assign app roles and write: require roles <role>"))
		}
	}
	return e
}

// foundClaim says why a claim does not meet its requirement. It does not tell the value,
// which may be personal.
func foundClaim(claims json.RawMessage, name string) string {
	if _, ok := findClaim(claims, name); !ok {
		return "absent"
	}
	return "other value"
}

// logDenied logs at most once a minute for each claim and user.
func (h *Handler) logDenied(r *http.Request, denied *AuditEvent, unmet *Requirement) {
	suppressed, ok := h.logLimiter.allowText("forbidden", denied.Claim+" "+denied.Found+" "+denied.User)
	if !ok {
		return
	}
	h.log(r).Warn("a user was refused: the session does not have a required claim", zap.String("user", printable(denied.User)),
		zap.String("claim", denied.Claim), zap.Strings("wanted", unmet.Values), zap.String("found", denied.Found),
		zap.Stringer("session", denied.Session), zap.Int("suppressed", suppressed))
}

const groupsClaim = "groups"

// hasGroupsOverage reports whether the server has left out the groups because there are
// many. Entra ID then sends hasgroups, or names another source for the groups, which
// only its own API can be asked for.
func hasGroupsOverage(claims json.RawMessage) bool {
	if _, ok := findClaim(claims, groupsClaim); ok {
		return false
	}
	has, _ := findClaim(claims, "hasgroups")
	text, _ := ClaimText(has)
	_, elsewhere := findClaim(claims, claimNames+"."+groupsClaim)
	return text == "true" || elsewhere
}
