package handler

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// sessionInfo is the answer of the session endpoint. It contains no token, because
// any script of the site can read it.
type sessionInfo struct {
	Authenticated bool            `json:"authenticated"`
	User          string          `json:"user,omitempty"`
	Claims        json.RawMessage `json:"claims,omitempty"`
	CreatedAt     *time.Time      `json:"created_at,omitempty"`
	// In seconds from now; never negative.
	IdleExpiresIn  *int64 `json:"idle_expires_in,omitempty"`
	MaxExpiresIn   *int64 `json:"max_expires_in,omitempty"`
	TokenExpiresIn *int64 `json:"token_expires_in,omitempty"`
	LoginURL       string `json:"login_url"`
	LogoutURL      string `json:"logout_url,omitempty"`
}

// serveSession answers whether the browser has a session. It does not count as use
// of the session, so a page may poll it without keeping the session alive.
func (h *Handler) serveSession(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	info := sessionInfo{LoginURL: h.PathPrefix + "/login"}
	c := h.readCookies(r)
	switch {
	case c.err != nil:
		return h.fail(w, r, unavailable(c.err))
	case !c.valid:
		return writeJSON(w, r, http.StatusOK, info)
	}
	s, err := h.Keeper.Peek(r.Context(), c.secret)
	switch {
	case errors.Is(err, keeper.ErrNoSession):
		return writeJSON(w, r, http.StatusOK, info)
	case err != nil:
		return h.fail(w, r, unavailable(err))
	}
	h.countAnswer(w, r, &c, toPage, true)
	return h.writeSession(w, r, s)
}

// minForcedRefreshAge is the least age of a token that the refresh endpoint
// replaces. It limits the refreshes that a page in a loop can cause.
const minForcedRefreshAge = 10 * time.Second

// serveRefresh refreshes the token, unless it is younger than minForcedRefreshAge.
// A page calls it when the rights of its user have changed. It counts as use of the
// session.
func (h *Handler) serveRefresh(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	if h.isCrossOrigin(r) {
		return h.fail(w, r, crossOriginError())
	}
	c := h.readCookies(r)
	switch {
	case c.err != nil:
		return h.fail(w, r, unavailable(c.err))
	case !c.valid:
		return h.unauthenticated(w, r)
	}
	s, err := h.Keeper.FreshSince(r.Context(), c.secret, time.Now().Add(-minForcedRefreshAge))
	switch {
	case errors.Is(err, keeper.ErrNotRefreshable):
		return h.fail(w, r, &Error{
			Status: http.StatusConflict, Code: "not_refreshable", Title: "Not refreshable",
			Detail: "The token of this session cannot be refreshed now. The session lasts as long as its access token.",
		})
	case errors.Is(err, keeper.ErrNoSession):
		return h.unauthenticated(w, r)
	case err != nil:
		return h.fail(w, r, unavailable(err))
	}
	h.countAnswer(w, r, &c, toPage, true)
	return h.writeSession(w, r, s)
}

func (h *Handler) writeSession(w http.ResponseWriter, r *http.Request, s *keeper.Session) error {
	info := sessionInfo{LoginURL: h.PathPrefix + "/login"}
	now := time.Now()
	// Whole seconds, like the other times of the answer.
	created := s.Created.UTC().Truncate(time.Second)
	info.Authenticated, info.User, info.Claims = true, s.Subject, s.Claims
	info.CreatedAt = &created
	info.IdleExpiresIn = secondsUntil(now, s.IdleEnd)
	info.MaxExpiresIn = secondsUntil(now, s.LastsUntil)
	*info.IdleExpiresIn = min(*info.IdleExpiresIn, *info.MaxExpiresIn)
	info.TokenExpiresIn = secondsUntil(now, s.TokenExpires)
	info.LogoutURL = h.PathPrefix + "/logout"
	return writeJSON(w, r, http.StatusOK, info)
}

func secondsUntil(now, t time.Time) *int64 {
	s := int64(max(t.Sub(now), 0) / time.Second)
	return &s
}
