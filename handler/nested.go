package handler

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// A request may pass two Handlers that both protect it: one for the site, and one inside
// for an area with further requirements. The outer Handler has removed the cookies, and
// has set the token and the user. The inner one finds it through the chain of response
// writers (see reclaim).

// sameSite reports whether a session of one Handler is also one of the other.
func (h *Handler) sameSite(other *Handler) bool {
	var none seal.Secret
	return h.Keeper.Site.Ref(none).ID == other.Keeper.Site.Ref(none).ID
}

// isNested reports whether an outer Handler has relayed the request, given the writer to
// which this Handler relays. The request's headers are then those of the outer Handler.
func isNested(w http.ResponseWriter) bool {
	for guards := 0; ; {
		if _, ok := w.(*cookieGuard); ok {
			guards++ // the first one is that of this Handler
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if guards > 1 || !ok {
			return guards > 1
		}
		w = wrapper.Unwrap()
	}
}

// takeOver makes an inner Handler answer a request as if the outer ones of its login had
// left it unprotected: it gets its cookies back, and sets cookies. The outermost Handler
// has removed the cookies, and each of them guards the answer.
func (h *Handler) takeOver(r *http.Request, outer *cookieGuard) {
	for ; outer != nil; outer = outerGuard(outer.ResponseWriter) {
		if !outer.disabled && h.sameSite(outer.handler) {
			outer.disabled = true
			h.restoreCookies(r, outer.cookies)
		}
	}
}

// callbackPrefix returns the path prefix of the callback of a login that begins here. That
// is the outermost Handler of the same login that needs a session for this request, or
// else this Handler. A callback may come without the session's cookie: it has no strict
// cookie, and a posted one has none at all. An outer Handler would answer it as an ordinary
// request without a session, with the code in its page and in the access log.
func (h *Handler) callbackPrefix(w http.ResponseWriter, r *http.Request) string {
	prefix := h.PathPrefix
	for outer := outerGuard(w); outer != nil; outer = outerGuard(outer.ResponseWriter) {
		other := outer.handler
		accepts := other.Client.FormPost() || !h.Client.FormPost()
		if outer.session != nil && accepts && h.sameSite(other) && !other.isOptional(r) {
			prefix = other.PathPrefix
		}
	}
	return prefix
}

// relayNested relays a request that an outer Handler of the same login has relayed with
// a session. The session is that of the outer Handler. A login here would lead back to
// the same situation, so only the token's age and the requirements of this Handler are
// left to check.
func (h *Handler) relayNested(w http.ResponseWriter, r *http.Request, outer *cookieGuard, next Next) error {
	// The outer Handler has decided whether the request counts as use of the session.
	c := &cookies{secret: outer.secret, valid: true, passive: true}
	s, err := h.loadSession(r, c)
	switch {
	case err == nil:
		return h.relaySession(w, r, c, s, next)
	case errors.Is(err, errTooEarly):
		return h.fail(w, r, tooEarly())
	case errors.Is(err, errTooOld) && h.isNavigation(r):
		h.takeOver(r, outer)
		return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r), explicit: true})
	case errors.Is(err, errTooOld), errors.Is(err, keeper.ErrNoSession):
		h.takeOver(r, outer)
		return h.unauthenticated(w, r)
	}
	return h.fail(w, r, unavailable(err))
}

// mayServeBehind reports whether a request behind a Handler of another login can be
// served without a new login here: it needs no session, or has a cookie of this
// Handler, which the outer one has left. The Caddy module removes such cookies.
func (h *Handler) mayServeBehind(r *http.Request, isEndpoint bool) bool {
	if isEndpoint {
		return false
	}
	c := h.readCookies(r)
	return c.valid || c.err != nil || h.isOptional(r) || h.isTrustedPreflight(r)
}

// nestedLogins answers a request that needs the sessions of two logins at the same time.
// No login could satisfy both: the browser would be redirected without end. If the path
// is ambiguous, the client has caused that; otherwise the configuration has.
func (h *Handler) nestedLogins(r *http.Request, outer *Handler) *Error {
	if h.hasAmbiguousPath(r) {
		return ambiguousPath()
	}
	return &Error{
		Status: http.StatusInternalServerError, Code: "nested_logins", Title: "This site is not set up correctly",
		Detail: "This page needs two different sign-ins at the same time. The operator of the site has to correct that.",
		Err: fmt.Errorf("the login with path_prefix %s and cookie %s is nested in another one, with path_prefix %s and cookie %s: exclude its requests from the matcher of the outer one",
			h.PathPrefix, h.Cookie.Name, outer.PathPrefix, outer.Cookie.Name),
	}
}
