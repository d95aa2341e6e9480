package dialect

import (
	"net/http"
	"time"
)

// Pagero is a client at Pagero Online. It uses plain OAuth 2.0 and may send its
// credentials by Basic or in the body. Each answer has an empty scope and a
// non-standard member. Refresh tokens are single use; each lives three years
// from its own issue.
type Pagero struct {
	ClientID, ClientSecret string
	RedirectURI            string
}

func (c Pagero) rules() rules {
	return rules{
		authorizePath: "/oauth/v2/oauth-authorize", tokenPath: "/oauth/v2/oauth-token",
		clientID: c.ClientID, clientSecret: c.ClientSecret, redirectURI: c.RedirectURI,
		auth:       authentication{basic: true, body: true},
		authorize:  parameters{optional: []string{"scope"}},
		accessLife: 600 * time.Second, refreshLife: 3 * 365 * 24 * time.Hour,
		refreshable: func(*login, time.Duration) bool { return true },
		rotates:     true, rolling: true,
		newRefreshToken: func() string { return "_1XBPWQQ_" + uuid() },
		answer: func(_ *Server, t tokens) (map[string]any, error) {
			return map[string]any{
				"token_type": "bearer", "access_token": t.access, "refresh_token": t.refresh,
				"scope": "", "claims": "publicid", "expires_in": int(t.lifetime.Seconds()),
			}, nil
		},
		badClient: problem{http.StatusUnauthorized, "invalid_client", "Client authentication failed"},
		badGrant:  problem{http.StatusBadRequest, "invalid_grant", "The grant is invalid, expired or used"},
	}
}
