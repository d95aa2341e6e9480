package handler

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
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

// meetsRequirements reports whether claims meet all requirements. A claim that is
// missing, or that cannot be compared, meets none.
func (h *Handler) meetsRequirements(claims json.RawMessage) bool {
	for _, req := range h.Require {
		value, ok := findClaim(claims, req.Claim)
		if !ok || !matches(value, req.Values) {
			return false
		}
	}
	return true
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
func (h *Handler) forbidden(r *http.Request) *Error {
	return &Error{
		Status: http.StatusForbidden, Code: "forbidden", Title: "No access",
		Detail: "You are signed in, but your account may not use this page.",
		Retry:  h.originalRequestURI(r), SwitchAccount: true,
	}
}
