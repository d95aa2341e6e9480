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

// ErrKeysUnavailable means that the keys that verify tokens could not be
// fetched: nothing is said about the token itself. They are fetched again by
// later calls.
var ErrKeysUnavailable = errors.New("the authorization server's keys are not available")

const (
	// maxKeyStaleness is how long a set serves while no newer one can be
	// fetched. It ends the trust in keys that the server has withdrawn.
	maxKeyStaleness = 48 * time.Hour

	// maxKeys is how many keys of a set are looked at, maxTries how many of
	// them are tried on one token without a key id.
	maxKeys  = 1000
	maxTries = 32

	minRSABits, maxRSABits = 2048, 16384
)

// keySet holds the usable keys of a JSON Web Key Set (RFC 7517).
type keySet struct{ keys []verificationKey }

type verificationKey struct {
	id     string // kid, may be empty
	alg    string // the only algorithm the key is for, may be empty
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
		return keySet{}, 0, fmt.Errorf("fetching %s: %w", u, err)
	}
	return set, fresh, nil
}

// parseKeySet takes the keys that can verify a signature and skips all others,
// as RFC 7517 section 5 asks for. A set without any is an error, so that it
// never takes the place of a good one.
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

// parseKey reads one key. It hands only public members on to go-jose: private
// ones have no business here, and a broken certificate chain must not cost the
// key.
func parseKey(raw json.RawMessage) (verificationKey, bool) {
	members, err := parseObject(raw)
	if err != nil || !forSignatures(members) {
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

// forSignatures applies use and key_ops (RFC 7517 sections 4.2 and 4.3).
func forSignatures(members map[string]json.RawMessage) bool {
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

// has reports whether the set lists a key id.
func (s keySet) has(kid string) bool {
	return slices.ContainsFunc(s.keys, func(k verificationKey) bool { return k.id == kid })
}

// find returns the keys that may have made a signature: those with the token's
// key id, or all if it has none, that fit the algorithm by type, curve and
// their own alg.
func (s keySet) find(kid, alg string) []jwt.VerificationKey {
	var found []jwt.VerificationKey
	for _, k := range s.keys {
		if kid != "" && k.id != kid || k.alg != "" && k.alg != alg || !fits(k.public, alg) {
			continue
		}
		if found = append(found, k.public); len(found) == maxTries {
			break
		}
	}
	return found
}

// fits reports whether a key is of the type, and the curve, of an algorithm of
// RFC 7518 section 3.1 or RFC 8037 section 3.1.
func fits(public any, alg string) bool {
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
