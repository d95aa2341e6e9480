package handler

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// serveLogout ends the session here first, whatever the authorization server
// does, and then sends the browser there to end its session too (OpenID
// Connect RP-Initiated Logout). GET changes nothing: it shows a button.
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
			// Whoever has the cookie would go on at another instance. Our user
			// keeps it, to try again.
			h.revoke(e)
			return h.fail(w, r, logoutUnavailable(err))
		case isUnavailable(err):
			// It is over in this process, and the record is deleted as soon as the
			// store can; only the authorization server's part is missing.
			h.Logger.Warn("logged out, but the store did not answer: the tokens are not revoked", zap.Error(err))
		}
	}
	h.clearLoginCookies(w, &c)
	if c.present {
		h.clearSession(w)
	}
	return h.redirectAfterLogout(w, r, ended)
}

// leave sends the browser on after a logout.
func (h *Handler) redirectAfterLogout(w http.ResponseWriter, r *http.Request, ended keeper.Ended) error {
	target := h.PathPrefix + "/logout/callback"
	if origin, failure := h.origin(r); failure == nil {
		// The server sends it back to an address that has to be registered
		// there: one, whatever post_logout_redirect says.
		hint := ended.IDToken
		if !isFormPost(r) {
			hint = "" // a script gets no token to see, not even this one
		}
		end, err := h.Client.EndSessionURL(r.Context(), hint, origin+target, randomText(16))
		if err != nil {
			h.Logger.Warn("logged out here, but not at the authorization server", zap.Error(err))
		}
		if end != "" && err == nil {
			target = end
		}
	}
	if !isFormPost(r) {
		return writeJSON(w, r, http.StatusOK, map[string]string{"logout_url": target})
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// serveLoggedOut is where the authorization server sends the browser after its
// own logout. It says the same to everybody, and so needs no `state`.
func (h *Handler) serveLoggedOut(w http.ResponseWriter, r *http.Request) error {
	if h.PostLogoutRedirect != "" {
		w.Header().Set("Location", h.PostLogoutRedirect)
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	return writePage(w, r, http.StatusOK, page{Title: "Signed out", Detail: "You have signed out of this site.", Link: "/", LinkText: "Sign in again"})
}
