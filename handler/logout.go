package handler

import (
	"encoding/json"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
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
			h.audit(r, AuditEvent{Kind: AuditLogout, Session: e.ID, User: e.Subject})
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
			h.log(r).Warn("logged out, but the store did not answer: the tokens were not revoked", zap.Error(err))
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
		request := oauth.LogoutRequest{LogoutHint: logoutHint(ended), PostLogoutRedirectURI: origin + target, State: randomText(16)}
		// A script must not read any token.
		if !h.OmitIDTokenHint && h.kindOf(r) == formRequest {
			request.IDTokenHint = ended.IDToken
		}
		if len(request.IDTokenHint) > oauth.MaxIDTokenHint && h.logLimiter.allow("long ID token at a logout") {
			h.log(r).Info("an ID token is too long for the URL of a logout: the authorization server gets client_id and logout_hint in its place, and may ask the user",
				zap.Int("bytes", len(request.IDTokenHint)))
		}
		end, err := h.Client.EndSessionURL(r.Context(), request)
		if err != nil {
			h.log(r).Warn("logged out here, but not at the authorization server", zap.Error(err))
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

// maxLogoutHint bounds what the URL of a logout says about the session, in bytes.
const maxLogoutHint = 512

// logoutHint names the session to a server that gets no ID token: by the claim
// `login_hint`, which Entra ID expects there, or by its `sid`. It never names the user by
// an address or a name, because URLs are logged.
func logoutHint(ended keeper.Ended) string {
	var hint string
	if json.Unmarshal(decodePayload(ended.IDToken)["login_hint"], &hint) != nil || hint == "" || len(hint) > maxLogoutHint {
		hint = ended.SID
	}
	if len(hint) > maxLogoutHint {
		return ""
	}
	return hint
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
