package handler

import (
	"errors"
	"net/http"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// isEarly reports whether a request came in TLS early data, which anybody on
// the network can send again, or says that it did: that is a proxy's word (RFC
// 8470, section 5.1, which wants every value read alike), and who else says so
// delays himself alone.
func isEarlyData(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || r.Header["Early-Data"] != nil
}

// earlyMargin is more than what a token must be good for to be used at all.
const earlyMargin = 10 * time.Second

// errTooEarly: the request would change something, and may be a replay.
var errTooEarly = errors.New("not in early data")

// sessionOf returns the session behind a request. In early data that changes
// nothing: no token is refreshed, and the session's idle time runs on. Where
// that will not do the client comes again after the handshake, as browsers do by
// themselves (RFC 8470, section 5.2).
func (h *Handler) loadSession(r *http.Request, c *cookies) (*keeper.Session, error) {
	if !isEarlyData(r) {
		return h.freshSession(r, c)
	}
	s, err := h.Keeper.Peek(r.Context(), c.secret)
	if err != nil {
		return nil, err
	}
	if _, limited := h.ageLimit(r); limited || time.Until(s.TokenExpires) < earlyMargin {
		return nil, errTooEarly
	}
	return s, nil
}
