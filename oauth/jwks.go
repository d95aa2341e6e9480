package oauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// ErrKeysUnavailable means that the client could not fetch the server's keys. It
// says nothing about the token. Later calls try again.
var ErrKeysUnavailable = errors.New("the authorization server's keys are not available")

const (
	// maxKeyStaleness is how long a key set remains usable while fetches fail. It
	// limits the trust in keys that the server may have withdrawn.
	maxKeyStaleness = 48 * time.Hour

	// maxKeys limits the keys read from a set. maxKeysTried limits those tried on
	// one token.
	maxKeys      = 1000
	maxKeysTried = 32

	// Accepted lengths of RSA keys (RFC 7518 section 3.3 requires the minimum).
	minRSABits, maxRSABits = 2048, 16384
)

// keySet holds the usable keys of a JSON Web Key Set (RFC 7517).
type keySet struct{ keys []verificationKey }

type verificationKey struct {
	id     string // kid, may be empty
	alg    string // the only algorithm of the key, may be empty
	public any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

func (c *Client) fetchKeys(ctx context.Context) (keySet, time.Duration, error) {
	u, err := c.endpoint(ctx, jwksURI)
	if err != nil {
		return keySet{}, 0, err
	}
	body, fresh, err := c.fetchDocument(ctx, u)
	if err != nil {
		return keySet{}, 0, fmt.Errorf("fetching %s: %w", u, err)
	}
	set, err := parseKeySet(body)
	if err != nil {
		return keySet{}, 0, operatorError{fmt.Errorf("fetching %s: %w", u, err)}
	}
	return set, fresh, nil
}

// parseKeySet reads the keys that can verify signatures, and skips all others, as
// RFC 7517 section 5 requires. A set without such keys is an error, so that it never
// replaces a valid one.
func parseKeySet(body []byte) (keySet, error) {
	members, err := parseObject(body)
	if err != nil {
		return keySet{}, err
	}
	var list []json.RawMessage
	if json.Unmarshal(members["keys"], &list) != nil {
		return keySet{}, errors.New("the key set has no list of keys")
	}
	var set keySet
	for _, raw := range list[:min(len(list), maxKeys)] {
		if key, ok := parseKey(raw); ok {
			set.keys = append(set.keys, key)
		}
	}
	if len(set.keys) == 0 {
		return keySet{}, errors.New("the key set has no usable key")
	}
	return set, nil
}

// parseKey reads one key. It passes only the public members to go-jose: private
// ones are not needed, and an invalid certificate chain must not invalidate the
// key.
func parseKey(raw json.RawMessage) (verificationKey, bool) {
	members, err := parseObject(raw)
	if err != nil || !verifiesSignatures(members) {
		return verificationKey{}, false
	}
	public := make(map[string]json.RawMessage)
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
		if v, ok := members[name]; ok {
			public[name] = v
		}
	}
	data, err := json.Marshal(public)
	if err != nil {
		return verificationKey{}, false
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(data) != nil {
		return verificationKey{}, false
	}
	switch k := jwk.Key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits || k.E < 3 || k.E%2 == 0 {
			return verificationKey{}, false
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return verificationKey{}, false
	}
	key := verificationKey{public: jwk.Key}
	key.id, _ = stringMember(members, "kid")
	key.alg, _ = stringMember(members, "alg")
	return key, true
}

// verifiesSignatures reports whether use and key_ops allow a key to verify
// signatures (RFC 7517 sections 4.2 and 4.3).
func verifiesSignatures(members map[string]json.RawMessage) bool {
	if raw, ok := members["use"]; ok && string(raw) != "null" {
		if use, _ := stringMember(members, "use"); use != "sig" {
			return false
		}
	}
	if raw, ok := members["key_ops"]; ok && string(raw) != "null" {
		return slices.Contains(stringsMember(members, "key_ops"), "verify")
	}
	return true
}

// hasKeyID reports whether the set contains a key with this id.
func (s keySet) hasKeyID(kid string) bool {
	return slices.ContainsFunc(s.keys, func(k verificationKey) bool { return k.id == kid })
}

// candidates returns the keys that may have made a signature. These have the
// token's key id, unless it has none, and match its algorithm by type, curve and
// their own alg. If no key has the token's key id, the only candidate is the key
// without an id, provided that exactly one matches the algorithm: some servers name
// the key in the token but not in the set.
func (s keySet) candidates(kid, alg string) []jwt.VerificationKey {
	wanted := kid
	if !s.hasKeyID(kid) {
		wanted = ""
	}
	var found []jwt.VerificationKey
	for _, k := range s.keys {
		if kid != "" && k.id != wanted || k.alg != "" && k.alg != alg || !matchesAlgorithm(k.public, alg) {
			continue
		}
		if found = append(found, k.public); len(found) == maxKeysTried {
			break
		}
	}
	if kid != wanted && len(found) > 1 {
		return nil
	}
	return found
}

// matchesAlgorithm reports whether a key has the type and curve of an algorithm of
// RFC 7518 section 3.1 or RFC 8037 section 3.1.
func matchesAlgorithm(public any, alg string) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, alg)
	case *ecdsa.PublicKey:
		curve := map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg]
		return k.Curve.Params().Name == curve
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}
