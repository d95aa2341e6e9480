package dialect

import (
	"crypto/rand"
	"encoding/base64"
	"math/big"
	"net/http"
	"time"
)

// Auth0 is an application at Auth0. It uses OpenID Connect and sends
// client_secret in the body. A login gets a refresh token only if it asks for
// offline_access and for the Audience. A refresh must not have an audience.
type Auth0 struct {
	ClientID string
	// ClientSecret is empty for a native application.
	ClientSecret string
	RedirectURI  string
	// Audience is the API that has Offline Access enabled.
	Audience string
	// ExpiresIn adds expires_in to the answers. The documented example lacks it.
	ExpiresIn bool
	// Rotation makes refresh tokens single use. Without it, refresh answers
	// have no refresh token.
	Rotation bool
}

func (c Auth0) rules() rules {
	return rules{
		authorizePath: "/authorize", tokenPath: "/oauth/token",
		clientID: c.ClientID, clientSecret: c.ClientSecret, redirectURI: c.RedirectURI,
		auth:       authentication{body: true},
		authorize:  parameters{optional: []string{"audience", "scope", "nonce", "prompt", "login_hint", "max_age"}},
		accessLife: 24 * time.Hour, // refresh tokens live "essentially forever"
		refreshable: func(l *login, _ time.Duration) bool {
			return l.hasScope("offline_access") && c.Audience != "" && l.query.Get("audience") == c.Audience
		},
		rotates:         c.Rotation,
		newRefreshToken: rand.Text,
		answer:          c.answer,
		// Auth0's documentation of refresh tokens shows no errors. These are
		// the errors of its real token endpoint.
		badClient: problem{http.StatusUnauthorized, "access_denied", "Unauthorized"},
		badGrant:  problem{http.StatusForbidden, "invalid_grant", "Unknown or invalid refresh token."},
		documents: map[string]func(*Server) (any, error){
			"/.well-known/openid-configuration": auth0Metadata,
			"/.well-known/jwks.json":            jwks,
		},
	}
}

func (c Auth0) answer(s *Server, t tokens) (map[string]any, error) {
	m := map[string]any{"access_token": t.access, "token_type": "Bearer"}
	if c.ExpiresIn {
		m["expires_in"] = int(t.lifetime.Seconds())
	}
	if t.refresh != "" && (c.Rotation || !t.afterRefresh) {
		m["refresh_token"] = t.refresh
	}
	if !t.login.hasScope("openid") {
		return m, nil
	}
	claims := map[string]any{
		"sub": "auth0|" + user, "aud": c.ClientID, "iat": time.Now().Unix(), "exp": time.Now().Add(10 * time.Hour).Unix(),
	}
	if nonce := t.login.query.Get("nonce"); nonce != "" {
		claims["nonce"] = nonce
	}
	var err error
	m["id_token"], err = s.sign(claims)
	return m, err
}

// auth0Metadata returns OpenID Provider Metadata. The issuer ends in a slash,
// as Auth0's does.
func auth0Metadata(s *Server) (any, error) {
	return map[string]any{
		"issuer":                                s.URL + "/",
		"authorization_endpoint":                s.AuthorizationEndpoint(),
		"token_endpoint":                        s.TokenEndpoint(),
		"jwks_uri":                              s.URL + "/.well-known/jwks.json",
		"response_types_supported":              []string{"code"},
		"code_challenge_methods_supported":      []string{"S256", "plain"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
		"scopes_supported":                      []string{"openid", "offline_access"},
	}, nil
}

func jwks(*Server) (any, error) {
	key, err := signingKey()
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID,
		"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
	}}}, nil
}
