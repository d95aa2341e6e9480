package oauth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// assertionLifetime is the time between iat and exp of an assertion. The steps
	// before it is sent take Config.Timeout at most.
	assertionLifetime = 60 * time.Second

	// minHMACSecret is the length of the shortest secret for HS256, in bytes (RFC 7518
	// section 3.2).
	minHMACSecret = 32

	assertionTypePrefix = "urn:ietf:params:oauth:client-assertion-type:"
	jwtBearer           = assertionTypePrefix + "jwt-bearer" // RFC 7523 section 2.2
)

// The values of Config.AssertionAudience.
const (
	audienceIssuer        = "issuer"
	audienceTokenEndpoint = "token_endpoint"
)

// signAssertion returns a new assertion about the client, signed with its first key
// (RFC 7523 section 3). Each call makes another one, because servers accept a jti once.
func (c *Client) signAssertion(ctx context.Context) (string, error) {
	keys, loaded, err := c.keyFile.current()
	if !loaded {
		return "", err
	}
	key := keys.keys[0]
	alg, err := c.keyAlgorithm(ctx, key)
	if err != nil {
		return "", err
	}
	token, err := c.newAssertion(ctx, signingMethod(alg))
	if err != nil {
		return "", err
	}
	token.Header["alg"], token.Header["kid"] = alg, key.id
	if key.certificate != nil {
		token.Header["x5t#S256"] = base64.RawURLEncoding.EncodeToString(key.certificate)
	}
	return token.SignedString(key.private)
}

// keyAlgorithm returns the algorithm with which a key signs. It asks for the server's
// metadata only if the key allows several.
func (c *Client) keyAlgorithm(ctx context.Context, key clientKey) (string, error) {
	listed := c.knownAssertionAlgorithms()
	if listed == nil && key.alg == "" && len(key.algorithms()) > 1 {
		m, err := c.metadata(ctx)
		if err != nil {
			return "", err
		}
		if m != nil {
			listed = m.assertionAlgs
		}
	}
	alg, err := key.signingAlg(listed)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", c.keyFile.option, c.keyFile.path, err)
	}
	return alg, nil
}

// knownAssertionAlgorithms returns token_endpoint_auth_signing_alg_values_supported of
// the metadata. It returns nil if the metadata has not been fetched or lacks it.
func (c *Client) knownAssertionAlgorithms() []string {
	if s := c.discovery.peek(); s != nil {
		return s.value.assertionAlgs
	}
	return nil
}

// hmacAssertion returns a new assertion about the client, authenticated with its
// secret (OpenID Connect Core section 9, client_secret_jwt).
func (c *Client) hmacAssertion(ctx context.Context) (string, error) {
	secret, err := c.hmacSecret()
	if err != nil {
		return "", err
	}
	token, err := c.newAssertion(ctx, jwt.SigningMethodHS256)
	if err != nil {
		return "", err
	}
	return token.SignedString([]byte(secret))
}

// hmacSecret returns the secret, unless it is too short for HS256.
func (c *Client) hmacSecret() (string, error) {
	secret, err := c.secret()
	if err == nil && len(secret) < minHMACSecret {
		err = fmt.Errorf("client_secret: client_secret_jwt needs a secret of at least %d bytes (RFC 7518 section 3.2)", minHMACSecret)
	}
	return secret, err
}

// newAssertion returns an unsigned assertion. By default it has the form of the draft
// rfc7523bis: the issuer is its only audience, so that no other server can use it, and
// typ separates it from other JWTs of the same key. Both hold for every endpoint.
func (c *Client) newAssertion(ctx context.Context, method jwt.SigningMethod) (*jwt.Token, error) {
	audience, typ := c.issuer, "client-authentication+jwt"
	if c.assertionAudience == audienceTokenEndpoint {
		u, err := c.endpoint(ctx, tokenEndpoint)
		if err != nil {
			return nil, err
		}
		audience, typ = u, "JWT"
	}
	now := time.Now()
	token := jwt.NewWithClaims(method, jwt.MapClaims{
		"iss": c.clientID, "sub": c.clientID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLifetime).Unix(),
	})
	token.Header["typ"] = typ
	return token, nil
}

// checkAssertionAudience checks AssertionAudience and whether the configuration has the
// audience.
func (cfg Config) checkAssertionAudience(signs bool) error {
	switch {
	case cfg.AssertionAudience != "" && !signs:
		return errors.New("assertion_audience needs token_endpoint_auth_method private_key_jwt or client_secret_jwt: no other method makes assertions")
	case cfg.AssertionAudience == audienceTokenEndpoint:
		return nil
	case cfg.AssertionAudience != "" && cfg.AssertionAudience != audienceIssuer:
		return fmt.Errorf("assertion_audience %s is unknown: use issuer or token_endpoint", quote(cfg.AssertionAudience))
	case signs && cfg.Issuer == "":
		return errors.New("token_endpoint_auth_method " + cfg.authMethod() + " needs issuer, the audience of its assertions; or set assertion_audience token_endpoint")
	}
	return nil
}
