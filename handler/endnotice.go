package handler

import (
	"net/http"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// withoutSession answers a request that needs a session and has none: a page if its user
// must be informed of the end of the session, or else as unauthenticated.
func (h *Handler) withoutSession(w http.ResponseWriter, r *http.Request, c *cookies) error {
	if notice := h.endNotice(r, c, h.originalRequestURI(r)); notice != nil {
		return h.failEnded(w, r, notice)
	}
	return h.unauthenticated(w, r)
}

// endNotice returns the page for a browser after an operator or a later login has ended its
// session, or nil. A silent login would hide the end, and two browsers of a user would end
// each other's sessions in turn. Only a navigation shows the page, and only once.
func (h *Handler) endNotice(r *http.Request, c *cookies, returnTo string) *Error {
	if !c.valid || r.Method != http.MethodGet || !h.isNavigation(r) || isPrefetch(r) {
		return nil
	}
	e := &Error{Status: http.StatusUnauthorized, Title: "You have been signed out", Retry: returnTo}
	switch h.Keeper.TakeEndNotice(r.Context(), c.secret) {
	case keeper.EndRevoked:
		e.Code, e.Detail = "session_revoked", "An operator of this site has ended your session. You can sign in again."
	case keeper.EndSessionLimit:
		e.Code = "session_limit"
		e.Detail = "Your account has signed in elsewhere, and this site limits how many sessions an account can have. If that was not you, inform the operator of this site."
	default:
		return nil
	}
	return e
}

func (h *Handler) failEnded(w http.ResponseWriter, r *http.Request, e *Error) error {
	setChallenge(w)
	return h.fail(w, r, e)
}

// setChallenge sets the header that every 401 needs (RFC 9110, section 15.5.2).
func setChallenge(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="oauth_session"`)
}
