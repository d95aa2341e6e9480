package handler

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// revokeTimeout bounds a revocation. It runs in the background.
const revokeTimeout = 10 * time.Second

// revoke revokes the refresh token of an ended session (RFC 7009). With
// offline_access the refresh token would stay valid after the logout at the
// authorization server.
func (h *Handler) revoke(ended keeper.Ended) {
	if ended.RefreshToken != "" {
		h.revokeToken(ended.RefreshToken, "refresh_token")
	}
}

// revokeToken revokes a token in the background: the browser does not wait for it.
func (h *Handler) revokeToken(token, hint string) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), revokeTimeout)
		defer cancel()
		err := h.Client.Revoke(ctx, token, hint)
		if err != nil && !errors.Is(err, oauth.ErrNoEndpoint) && h.logLimiter.allow("revoke") {
			h.Logger.Warn("revoking an unused token failed", zap.Error(err))
		}
	}()
}

// revokeUnused revokes the tokens of a login that does not become a session. It
// revokes nothing while the browser has another session: both may belong to one
// grant of the server, which may revoke all tokens of the grant (RFC 7009, section
// 2.1).
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

// endReplacedSession ends the session that a new login replaces, so that its cookie
// is of no use any longer. It revokes the old refresh token, unless that may also
// end the new session.
func (h *Handler) endReplacedSession(ctx context.Context, c *cookies, identity keeper.Identity, t keeper.Tokens) {
	if !c.valid {
		return
	}
	// After an error, End still returns the tokens that it knows.
	old, _ := h.Keeper.End(ctx, c.secret, keeper.EndReplaced)
	if !mayShareGrant(old, identity, t) {
		h.revoke(old)
	}
}

// mayShareGrant reports whether revoking an old session's token may end a new
// login. Some servers (Keycloak) revoke all tokens of their own session, which sid
// names. Others (Google) revoke all tokens of the user; these do not send a sid.
func mayShareGrant(old keeper.Ended, identity keeper.Identity, t keeper.Tokens) bool {
	switch {
	case old.RefreshToken == t.RefreshToken:
		return true
	case old.SID != "" || identity.SID != "":
		return old.SID == identity.SID
	}
	return old.Subject != "" && old.Subject == identity.Subject
}
