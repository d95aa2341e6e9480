package oauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// defaultAlgorithm is the algorithm of a client that registered none (OpenID Connect
// Registration section 2, id_token_signed_response_alg).
const defaultAlgorithm = "RS256"

// algorithms are the supported signature algorithms, all of them asymmetric. The
// metadata cannot add "none" or HMAC, whose key would be the client secret.
var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

func (cfg Config) checkAlgorithm() error {
	switch alg := cfg.IDTokenAlgorithm; {
	case alg == "", slices.Contains(algorithms, alg):
		return nil
	case alg == "none" || strings.HasPrefix(alg, "HS"):
		return fmt.Errorf("id_token_signed_response_alg %s: anyone who knows the client secret could make such a token; "+
			"register the client for RS256 and leave the option out", quote(alg))
	default:
		return fmt.Errorf("id_token_signed_response_alg %s is unknown: use one of %s", quote(alg), strings.Join(algorithms, ", "))
	}
}

// signingAlgorithm returns the only algorithm with which the server may sign ID
// tokens, logout tokens and UserInfo for this client: the configured one, or else
// RS256. If the metadata lists exactly one algorithm, the client can be registered
// for no other, so that one replaces RS256.
func (c *Client) signingAlgorithm(ctx context.Context) (string, error) {
	if c.idTokenAlgorithm != "" {
		return c.idTokenAlgorithm, nil
	}
	m, err := c.metadata(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	}
	if m != nil {
		listed := slices.DeleteFunc(slices.Clone(algorithms), func(alg string) bool { return !slices.Contains(m.idTokenAlgs, alg) })
		if len(listed) == 1 {
			return listed[0], nil
		}
	}
	return defaultAlgorithm, nil
}

// checkAlgorithm refuses a token with another algorithm than the registered one
// (OpenID Connect Core section 3.1.3.7, Back-Channel Logout section 2.6). What the
// server could also sign with says nothing about this client.
func (c *Client) checkAlgorithm(ctx context.Context, alg string, kind jwtKind) error {
	want, err := c.signingAlgorithm(ctx)
	switch {
	case err != nil:
		return err
	case alg == want:
		return nil
	}
	return operatorError{fmt.Errorf("the %s is signed with %s, not with %s: if the client is registered for %s at the server, "+
		"set id_token_signed_response_alg %s", kind.name, alg, want, alg, alg)}
}

// checkSupported refuses algorithms that are never accepted, whatever the client is
// registered for.
func checkSupported(alg string) error {
	if slices.Contains(algorithms, alg) {
		return nil
	}
	err := fmt.Errorf("the signature algorithm %s is not allowed", quote(alg))
	if strings.HasPrefix(alg, "HS") {
		return operatorError{fmt.Errorf("%w: register the client for RS256 at the server (id_token_signed_response_alg)", err)}
	}
	return err
}

// errEncrypted refuses an encrypted token.
var errEncrypted error = operatorError{errors.New("the token is encrypted, which is not supported: register the client for signed tokens " +
	"that are not encrypted (without id_token_encrypted_response_alg and userinfo_encrypted_response_alg)")}
