package handler

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// serveLogout ends the session. It ends it here first, independent of the
// authorization server, and then sends the browser there to end its session, too
// (OpenID Connect RP-Initiated Logout). GET shows a button and changes nothing, so
// that a link or an image of another site cannot log the user out.
func (h *Handler) serveLogout(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return writePage(w, r, http.StatusOK, page{Title: "Sign out", Detail: "Do you want to sign out?", Post: h.PathPrefix + "/logout", PostText: "Sign out"})
	}
	if h.isCrossOrigin(r) {
		return h.fail(w, r, crossOriginError())
	}
	c := h.readCookies(r)
	var ended keeper.Ended
	for _, secret := range c.candidates[:c.count] {
		e, err := h.Keeper.End(r.Context(), secret, keeper.EndLogout)
		switch {
		case err == nil:
			ended = e
			h.revoke(ended)
		case errors.Is(err, keeper.ErrNotEnded):
			// Another instance would still accept the cookie. The user keeps it, to
			// repeat the logout.
			h.revoke(e)
			return h.fail(w, r, logoutUnavailable(err))
		case isUnavailable(err):
			// The session has ended in this process, and the keeper deletes the
			// record as soon as the store answers. Only the revocation of the
			// tokens is missing.
			h.Logger.Warn("logged out, but the store did not answer: the tokens were not revoked", zap.Error(err))
		}
	}
	h.clearLoginCookies(w, &c)
	if c.present {
		h.clearSession(w)
	}
	return h.redirectAfterLogout(w, r, ended)
}

// redirectAfterLogout sends the browser to the logout endpoint of the authorization
// server, or to the page after the logout. A script gets the URL in JSON instead.
func (h *Handler) redirectAfterLogout(w http.ResponseWriter, r *http.Request, ended keeper.Ended) error {
	target := h.PathPrefix + "/logout/callback"
	if origin, failure := h.origin(r); failure == nil {
		// The server returns the browser to an address that must be registered
		// there. It is therefore the same one whatever PostLogoutRedirect is.
		hint := ended.IDToken
		if h.kindOf(r) != formRequest {
			hint = "" // a script must not read any token
		}
		end, err := h.Client.EndSessionURL(r.Context(), hint, origin+target, randomText(16))
		if err != nil {
			h.Logger.Warn("logged out here, but not at the authorization server", zap.Error(err))
		}
		if end != "" && err == nil {
			target = end
		}
	}
	if h.kindOf(r) != formRequest {
		return writeJSON(w, r, http.StatusOK, map[string]string{"logout_url": target})
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// serveLoggedOut answers the redirect from the authorization server after its
// logout. The answer is the same for every browser, so `state` need not be checked.
func (h *Handler) serveLoggedOut(w http.ResponseWriter, r *http.Request) error {
	if h.PostLogoutRedirect != "" {
		w.Header().Set("Location", h.PostLogoutRedirect)
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	return writePage(w, r, http.StatusOK, page{Title: "Signed out", Detail: "You have signed out of this site.", Link: "/", LinkText: "Sign in again"})
}
