package handler

import (
	"errors"
	"net/http"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// isEarlyData reports whether a request came in TLS early data, which anyone on the
// network can send again (RFC 8470). The `Early-Data` header is believed from any
// sender: a client that forges it only slows itself down. Every value of it counts
// (RFC 8470, section 5.1).
func isEarlyData(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || r.Header["Early-Data"] != nil
}

// earlyMargin is the least remaining lifetime of a token in early data. It exceeds
// the lifetime that the keeper requires of a token.
const earlyMargin = 10 * time.Second

// errTooEarly reports a request that would change state and may be a replay.
var errTooEarly = errors.New("not in early data")

// loadSession returns the session of a request. For a request in early data it
// changes nothing: it neither refreshes the token nor counts as use of the session.
// If the token is not usable as it is, the answer is 425. Browsers then repeat the
// request after the handshake (RFC 8470, section 5.2).
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
