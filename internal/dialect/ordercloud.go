package dialect

import (
	"net/http"
	"time"
)

// OrderCloud is a public client at OrderCloud.io. It uses plain OAuth 2.0
// without a secret. A refresh must have a scope, and token_type is in lower
// case. The login's refresh token serves all refreshes until it expires; with a
// lifetime of zero, logins get none.
type OrderCloud struct {
	ClientID    string
	RedirectURI string
	// Scope is the required scope of refreshes. Empty: FullAccess.
	Scope string
}

func (c OrderCloud) rules() rules {
	scope := c.Scope
	if scope == "" {
		scope = "FullAccess"
	}
	return rules{
		authorizePath: "/oauth/authorize", tokenPath: "/oauth/token",
		clientID: c.ClientID, redirectURI: c.RedirectURI,
		// The documented refresh request has the content type text/html.
		anyContentType: true,
		authorize:      parameters{optional: []string{"scope"}},
		refresh:        parameters{required: map[string]string{"scope": scope}},
		accessLife:     35999 * time.Second, refreshLife: 12 * time.Hour,
		refreshable:     func(_ *login, life time.Duration) bool { return life > 0 },
		newRefreshToken: uuid,
		answer: func(_ *Server, t tokens) (map[string]any, error) {
			m := map[string]any{"access_token": t.access, "token_type": "bearer", "expires_in": int(t.lifetime.Seconds())}
			if t.refresh != "" {
				m["refresh_token"] = t.refresh
			}
			return m, nil
		},
		badClient: problem{http.StatusUnauthorized, "invalid_client", "Client authentication failed."},
		badGrant:  problem{http.StatusBadRequest, "invalid_grant", "The refresh token is invalid or has expired."},
	}
}
