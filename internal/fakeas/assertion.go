package fakeas

import (
	"crypto"
	"errors"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// maxAssertionLifetime is the longest time from iat to exp.
	maxAssertionLifetime = 5 * time.Minute
)

// assertionAlgs are the algorithms for client assertions.
var assertionAlgs = []string{"RS256", "PS256", "ES256", "EdDSA"}

// checkAssertion checks a client assertion of private_key_jwt as the draft rfc7523bis
// demands: the issuer is the only audience, typ is set, and no assertion counts twice.
func (s *Server) checkAssertion(c *call, client Client) *refusal {
	if err := s.verifyAssertion(c, client); err != nil {
		return refuse(http.StatusUnauthorized, "invalid_client", "client assertion: "+err.Error())
	}
	return nil
}

func (s *Server) verifyAssertion(c *call, client Client) error {
	if c.form.Get("client_assertion_type") != jwtBearer {
		return errors.New("wrong client_assertion_type")
	}
	var claims struct {
		jwt.RegisteredClaims
		Audience string `json:"aud"` // an array is refused
	}
	token, err := jwt.ParseWithClaims(c.form.Get("client_assertion"), &claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key := s.assertionKey(client.ID, kid)
		if key == nil {
			return nil, errors.New("unknown kid")
		}
		return key, nil
	}, jwt.WithValidMethods(assertionAlgs), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithIssuer(client.ID), jwt.WithSubject(client.ID))
	switch {
	case err != nil:
		return err
	case token.Header["typ"] != "client-authentication+jwt":
		return errors.New("wrong typ")
	case claims.Audience != s.issuer(c.knobs):
		return errors.New("aud is not the issuer alone")
	case claims.IssuedAt == nil || claims.ExpiresAt.Sub(claims.IssuedAt.Time) > maxAssertionLifetime:
		return errors.New("valid for too long")
	case claims.ID == "":
		return errors.New("no jti")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.assertions[claims.ID] && !client.SameAssertion {
		return errors.New("jti was used before")
	}
	s.assertions[claims.ID] = true
	return nil
}

// SetAssertionKeys replaces the public keys of a client with private_key_jwt, by kid.
func (s *Server) SetAssertionKeys(clientID string, keys map[string]crypto.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assertionKeys[clientID] = keys
}

func (s *Server) assertionKey(clientID, kid string) crypto.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.assertionKeys[clientID][kid]
}
