package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session"
)

// maxClaims bounds what of a user every request carries along.
const maxClaims = 64 << 10

// protocolClaims say something about a token, not about the user.
var protocolClaims = []string{"iss", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "c_hash", "s_hash", "jti", "sid", "rat"}

// identify finds out who has logged in: from the ID token where there is one,
// and from the UserInfo endpoint where that is asked for.
func (h *Handler) identify(ctx context.Context, t *oauth.TokenResponse, nonce string) (session.Identity, error) {
	var who session.Identity
	claims := map[string]json.RawMessage{}
	if h.Client.OpenID() {
		if t.IDToken == "" {
			return who, errors.New("the authorization server sent no ID token although scope has openid")
		}
		idToken, err := h.Client.VerifyIDToken(ctx, t.IDToken, oauth.IDTokenWant{Nonce: nonce, AccessToken: t.AccessToken})
		if err != nil {
			return who, fmt.Errorf("checking ID token: %w", err)
		}
		who.Subject, who.SID, who.Nonce, who.IssuedAt = idToken.Subject, idToken.SessionID, nonce, idToken.IssuedAt
		maps.Copy(claims, idToken.Claims)
	}
	if h.UserInfo {
		info, err := h.Client.UserInfo(ctx, t.AccessToken, who.Subject)
		if err != nil {
			return who, fmt.Errorf("asking for UserInfo: %w", err)
		}
		if err := json.Unmarshal(info["sub"], &who.Subject); err != nil {
			return who, fmt.Errorf("reading sub of UserInfo: %w", err)
		}
		maps.Copy(claims, info)
	}
	var err error
	who.Claims, err = encodeClaims(claims)
	return who, err
}

// encodeClaims keeps the claims about the user.
func encodeClaims(claims map[string]json.RawMessage) (json.RawMessage, error) {
	maps.DeleteFunc(claims, func(name string, _ json.RawMessage) bool {
		for _, p := range protocolClaims {
			if name == p {
				return true
			}
		}
		return false
	})
	if len(claims) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("keeping claims: %w", err)
	}
	if len(b) > maxClaims {
		return nil, fmt.Errorf("the user's claims take %d bytes, the limit is %d: ask the authorization server for fewer", len(b), maxClaims)
	}
	return b, nil
}
