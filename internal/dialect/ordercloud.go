package dialect

import (
	"net/http"
	"time"
)

// OrderCloud is a public client at OrderCloud.io: plain OAuth 2.0, no secret,
// scope on refresh, token_type in lower case. The refresh token of the first
// answer is used again and again until its own lifetime ends; a lifetime of
// zero means that there is none.
type OrderCloud struct {
	ClientID    string
	RedirectURI string
	// Scope is what refreshes must ask for. Empty: FullAccess.
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
		// The documented refresh request is declared as text/html.
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
