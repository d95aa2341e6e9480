package handler

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

const backchannelPath = "/backchannel_logout"

// serveBackchannelLogout ends the sessions that a logout token names (OpenID
// Connect Back-Channel Logout, section 2.5). The authorization server calls it, and
// not a browser. There is no cookie and no Origin to check: the request is
// authenticated by the signature of the token alone.
func (h *Handler) serveBackchannelLogout(w http.ResponseWriter, r *http.Request) error {
	if !h.Client.OpenID() {
		return h.fail(w, r, notFound()) // without ID tokens, the server has no name for a session
	}
	raw, err := readLogoutToken(w, r)
	if err != nil {
		return h.refuseLogout(w, r, err)
	}
	token, err := h.Client.VerifyLogoutToken(r.Context(), raw)
	switch {
	case errors.Is(err, oauth.ErrKeysUnavailable), errors.Is(err, oauth.ErrMetadataUnavailable):
		return h.logoutFailed(w, r, err)
	case err != nil:
		return h.refuseLogout(w, r, err)
	}
	n, err := h.Keeper.EndByServerLogout(r.Context(), keeper.Logout{
		SID: token.SessionID, Subject: token.Subject, IssuedAt: token.IssuedAt, Token: token.ID, Until: token.ValidUntil,
	})
	switch {
	case errors.Is(err, keeper.ErrReplayed):
		return h.refuseLogout(w, r, err)
	case err != nil:
		return h.logoutFailed(w, r, err)
	}
	level := zap.InfoLevel
	if n == 0 { // as after a logout that began here
		level = zap.DebugLevel
	}
	h.log(r).Log(level, "logged out by the authorization server", zap.Int("sessions", n), zap.String("user", printable(token.Subject)))
	if n > 0 {
		h.audit(r, AuditEvent{Kind: AuditBackchannelLogout, User: token.Subject})
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// readLogoutToken reads the parameter logout_token. Section 2.5 requires that other
// parameters are ignored.
func readLogoutToken(w http.ResponseWriter, r *http.Request) (string, error) {
	var form map[string]string
	body, err := readForm(w, r)
	if err == nil {
		form, err = singleParams(body, "logout_token")
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the logout request: %w", err)
	case form["logout_token"] == "":
		return "", errors.New("the logout request has no logout_token")
	}
	return form["logout_token"], nil
}

// refuseLogout answers as section 2.8 requires, and writes the cause to the log
// only. Anyone can send such a request, so it is logged as a warning, once a
// minute.
func (h *Handler) refuseLogout(w http.ResponseWriter, r *http.Request, err error) error {
	h.Meter.Refusal("invalid_logout")
	if h.logLimiter.allow("invalid_logout") {
		h.log(r).Warn("logout request refused", zap.Error(err))
	}
	return writeJSON(w, r, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
}

// logoutFailed asks the authorization server to repeat the request. The sessions
// that could be ended have ended.
func (h *Handler) logoutFailed(w http.ResponseWriter, r *http.Request, err error) error {
	e := &Error{Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: 5 * time.Second, Err: err, Reference: NewReference()}
	h.Meter.Refusal(e.Code)
	h.logFailure(r, e)
	e.setRetryAfter(w)
	return writeJSON(w, r, e.Status, map[string]string{"error": e.Code})
}
