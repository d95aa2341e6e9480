package handler

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// revokeTimeout bounds a revocation, which nobody waits for.
const revokeTimeout = 10 * time.Second

// revoke tells the authorization server that nobody needs the refresh token any
// more (RFC 7009). A refresh token asked for with offline_access outlives the
// server's own logout.
func (h *Handler) revoke(ended keeper.Ended) {
	if ended.RefreshToken != "" {
		h.revokeToken(ended.RefreshToken, "refresh_token")
	}
}

// revokeToken works behind the request.
func (h *Handler) revokeToken(token, hint string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), revokeTimeout)
		defer cancel()
		err := h.Client.Revoke(ctx, token, hint)
		if err != nil && !errors.Is(err, oauth.ErrNoEndpoint) && h.logLimiter.allow("revoke") {
			h.Logger.Warn("a token that is not needed any more was not revoked", zap.Error(err))
		}
	}()
}

// giveBack revokes what a login granted that cannot be kept. While the browser
// has another session nothing is revoked: both may belong to one grant at the
// server, which would end with either token (RFC 7009, section 2.1).
func (h *Handler) revokeUnused(ctx context.Context, c *cookies, t *oauth.TokenResponse) {
	if c.valid {
		if _, err := h.Keeper.Peek(ctx, c.secret); !errors.Is(err, keeper.ErrNoSession) {
			return
		}
	}
	switch {
	case t.RefreshToken != "":
		h.revokeToken(t.RefreshToken, "refresh_token")
	case t.AccessToken != "":
		h.revokeToken(t.AccessToken, "access_token")
	}
}

// endReplaced ends the session that a new login takes the place of: its cookie
// must not open anything any more. Its refresh token is revoked, unless the new
// session may end with that.
func (h *Handler) endReplacedSession(ctx context.Context, c *cookies, who keeper.Identity, t keeper.Tokens) {
	if !c.valid {
		return
	}
	// After an error what is known of the session is returned as well, or nothing.
	old, _ := h.Keeper.End(ctx, c.secret, keeper.EndReplaced)
	if !mayShareGrant(old, who, t) {
		h.revoke(old)
	}
}

// mayShareGrant reports whether an old session and a new login may be one grant
// at the server. Some servers (Keycloak) revoke all tokens of their session with
// the user, which sid names; others (Google) all of the user's. Servers of that
// kind tell no sid.
func mayShareGrant(old keeper.Ended, who keeper.Identity, t keeper.Tokens) bool {
	switch {
	case old.RefreshToken == t.RefreshToken:
		return true
	case old.SID != "" || who.SID != "":
		return old.SID == who.SID
	}
	return old.Subject != "" && old.Subject == who.Subject
}
