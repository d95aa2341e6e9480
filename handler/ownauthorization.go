package handler

import (
	"slices"
	"strings"

	"go.uber.org/zap"
)

// An app may have a login of its own, whose credentials its page or its client sends in
// Authorization (Node-RED, Verdaccio, Basic). With ReplaceAuthorization the app never
// gets them, and asks for them again: neither the app nor the user can see the reason.

// knownSchemes are the authentication schemes that the log may name (IANA, HTTP
// Authentication Scheme Registry, and NTLM). Any other text may be a secret.
var knownSchemes = []string{"Basic", "Bearer", "Digest", "DPoP", "GNAP", "HOBA", "Mutual", "Negotiate", "NTLM", "OAuth", "PrivateToken"}

// authorizationScheme returns the scheme of a client's Authorization header, as
// knownSchemes writes it, or "unknown".
func authorizationScheme(values []string) string {
	for _, value := range values {
		scheme, _, _ := strings.Cut(value, " ")
		if i := slices.IndexFunc(knownSchemes, func(known string) bool { return strings.EqualFold(known, scheme) }); i >= 0 {
			return knownSchemes[i]
		}
	}
	return "unknown"
}

// logRemovedAuthorization reports that the header of a client has not reached the app,
// and names the remedies.
func (h *Handler) logRemovedAuthorization(values []string) {
	if !h.logLimiter.allow("authorization removed") {
		return
	}
	h.Logger.Info("a client's Authorization header did not reach the app, because `authorization replace` is the default. If the app has a login of its own, "+
		"write `authorization keep`, and `header <name> {token}` if it needs the token as well",
		zap.String("scheme", authorizationScheme(values)))
}
