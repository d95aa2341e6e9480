package handler

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Requirement is a claim that a session must have with one of these values.
// A claim that is a list must contain one of them. Values are compared whole
// and byte for byte; true, false and numbers by their JSON text.
type Requirement struct {
	// Claim is a claim's name, or a path into nested objects with dots, such as
	// realm_access.roles.
	Claim  string
	Values []string
}

// meetsRequirements fails closed: a claim that is missing or of a shape that
// cannot be compared meets nothing.
func (h *Handler) meetsRequirements(claims json.RawMessage) bool {
	for _, req := range h.Require {
		value, ok := findClaim(claims, req.Claim)
		if !ok || !matches(value, req.Values) {
			return false
		}
	}
	return true
}

// Claim finds a claim by its name, or by a path of names with dots in between.
func findClaim(claims json.RawMessage, name string) (json.RawMessage, bool) {
	var object map[string]json.RawMessage
	if len(claims) == 0 || json.Unmarshal(claims, &object) != nil {
		return nil, false
	}
	if v, ok := object[name]; ok {
		return v, true
	}
	// Names may hold dots themselves: try every place to cut.
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

// ClaimText returns a string, number or boolean as text; a list or an object
// has none.
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

// forbidden is for a session whose user may not come in here. Signing out, or
// in as somebody else, must stay possible.
func (h *Handler) forbidden(r *http.Request) *Error {
	return &Error{
		Status: http.StatusForbidden, Code: "forbidden", Title: "No access",
		Detail: "You are signed in, but your account may not use this page.",
		Retry:  h.originalRequestURI(r), SwitchAccount: true,
	}
}
