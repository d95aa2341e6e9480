package handler

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

const frontchannelPath = "/frontchannel_logout"

// serveFrontchannelLogout ends the session of this browser, if its `sid` is the one in
// the URL (OpenID Connect Front-Channel Logout, section 2). A page of the authorization
// server loads the URL in a frame. Without the cookie nothing ends: anyone can send a
// `sid` that he has seen. The answer is the same whether or not a session ended.
func (h *Handler) serveFrontchannelLogout(w http.ResponseWriter, r *http.Request) error {
	sid, err := h.readFrontchannelLogout(r)
	if err != nil {
		return h.refuseLogout(w, r, err)
	}
	c := h.parseCookies(r)
	for _, secret := range c.candidates[:c.count] {
		ended, err := h.Keeper.EndIfSID(r.Context(), secret, sid)
		switch {
		case errors.Is(err, keeper.ErrNoSession):
			continue
		case err != nil:
			h.revoke(ended)
			return h.logoutFailed(w, r, err)
		}
		h.revoke(ended)
		h.clearSession(w)
		h.log(r).Info("logged out by a page of the authorization server", zap.Stringer("session", ended.ID), zap.String("user", printable(ended.Subject)))
		h.audit(r, AuditEvent{Kind: AuditFrontchannelLogout, Session: ended.ID, User: ended.Subject})
	}
	h.allowFrame(w)
	w.WriteHeader(http.StatusOK)
	return nil
}

// readFrontchannelLogout returns the `sid` of a request that a frame has sent. The
// destination keeps links and images from logging the user out. Browsers without Fetch
// Metadata name none.
func (h *Handler) readFrontchannelLogout(r *http.Request) (sid string, err error) {
	params, err := singleParams(h.OriginalURL(r).RawQuery, "iss", "sid")
	if err != nil {
		return "", fmt.Errorf("reading the logout request: %w", err)
	}
	dest := r.Header.Get("Sec-Fetch-Dest")
	switch {
	case !h.Client.HasIssuer(params["iss"]):
		return "", errors.New("the logout request does not name the issuer (iss)")
	case params["sid"] == "":
		return "", errors.New("the logout request has no sid")
	case isPrefetch(r):
		return "", errors.New("the logout request is a prefetch")
	case dest != "" && dest != "iframe" && dest != "frame":
		return "", fmt.Errorf("the logout request comes from no frame, but has the destination %q", printable(dest))
	}
	return params["sid"], nil
}

// allowFrame lets pages of the issuer's origin show the answer in a frame. X-Frame-Options
// cannot name an origin.
func (h *Handler) allowFrame(w http.ResponseWriter) {
	issuer, err := url.Parse(h.Client.Issuer())
	if err != nil || issuer.Host == "" {
		return
	}
	w.Header().Del("X-Frame-Options")
	w.Header().Set("Content-Security-Policy",
		fmt.Sprintf("default-src 'none'; frame-ancestors %s://%s; base-uri 'none'", issuer.Scheme, issuer.Host))
}
