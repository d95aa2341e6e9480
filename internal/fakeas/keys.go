package fakeas

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"slices"
)

// signingKey is one key pair of the server.
type signingKey struct {
	kid, alg string
	private  crypto.Signer
}

// keyring holds the keys. It generates a key at its first use, since an RSA key
// is slow to generate and most tests need none. Callers hold Server.mu.
type keyring struct {
	current     map[string]*signingKey // by alg
	old         []*signingKey          // published, but no longer used
	generated   int                    // keys in current so far, for their kid
	unpublished map[string]*signingKey // by alg, absent from the JWKS
}

func generate(alg string) (crypto.Signer, error) {
	switch alg {
	case "RS256", "PS256":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("no key for algorithm %q", alg)
}

// signer returns the current signing key for alg.
func (r *keyring) signer(alg string) (*signingKey, error) {
	if k := r.current[alg]; k != nil {
		return k, nil
	}
	private, err := generate(alg)
	if err != nil {
		return nil, err
	}
	r.generated++
	k := &signingKey{kid: fmt.Sprintf("key-%d", r.generated), alg: alg, private: private}
	if r.current == nil {
		r.current = map[string]*signingKey{}
	}
	r.current[alg] = k
	return k, nil
}

// unpublishedKey returns a key that is never in the JWKS.
func (r *keyring) unpublishedKey(alg string) (*signingKey, error) {
	if k := r.unpublished[alg]; k != nil {
		return k, nil
	}
	private, err := generate(alg)
	if err != nil {
		return nil, err
	}
	if r.unpublished == nil {
		r.unpublished = map[string]*signingKey{}
	}
	r.unpublished[alg] = &signingKey{kid: "unpublished", alg: alg, private: private}
	return r.unpublished[alg], nil
}

// RotateKey signs the tokens from now on with a new key under a new kid. The old
// key stays published until RetireKeys.
func (s *Server) RotateKey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys.current {
		s.keys.old = append(s.keys.old, k)
	}
	s.keys.current = nil
}

// ReplaceKey replaces the current key by a new one with the same kid. The old
// key is no longer published.
func (s *Server) ReplaceKey() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys.current {
		private, err := generate(k.alg)
		if err != nil {
			return err
		}
		s.keys.current[k.alg] = &signingKey{kid: k.kid, alg: k.alg, private: private}
	}
	return nil
}

// RetireKeys removes the keys before the last RotateKey from the JWKS.
func (s *Server) RetireKeys() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys.old = nil
}

// jwk is the public half (RFC 7517).
func (k *signingKey) jwk() map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	m := map[string]any{"kid": k.kid, "use": "sig", "alg": k.alg}
	switch pub := k.private.Public().(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(pub.N.Bytes()), b64(big.NewInt(int64(pub.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			panic(err) // cannot happen: generate made the key
		}
		half := (len(point) - 1) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", "P-256", b64(point[1:1+half]), b64(point[1+half:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(pub)
	}
	return m
}

// jwks serves the published keys. Knobs.ExtraKeys come first.
func (s *Server) jwks(c *call) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.keys.signer(c.knobs.SigningAlg); err != nil {
		return page(http.StatusInternalServerError, err.Error())
	}
	keys := slices.Clone(c.knobs.ExtraKeys)
	own := slices.Clone(s.keys.old)
	for _, k := range s.keys.current {
		own = append(own, k)
	}
	for _, k := range own {
		m := k.jwk()
		if c.knobs.KeysWithoutID {
			delete(m, "kid")
		}
		keys = append(keys, m)
	}
	return jsonAnswer(http.StatusOK, map[string]any{"keys": keys})
}

// OddKeys returns JWKS members that a client must ignore: an unknown key type,
// an unknown curve, an RSA key without modulus, an encryption key, a symmetric
// key, the given kid on a key of unknown type, and 500 more of unknown type.
func OddKeys(kid string) []map[string]any {
	keys := []map[string]any{
		{"kty": "XYZ", "kid": "odd-type"},
		{"kty": "EC", "kid": "odd-curve", "crv": "P-999", "x": "AA", "y": "AA"},
		{"kty": "RSA", "kid": "odd-rsa", "e": "AQAB"},
		{"kty": "RSA", "kid": "odd-use", "use": "enc", "n": "AQAB", "e": "AQAB"},
		{"kty": "oct", "kid": "odd-oct", "k": "c2VjcmV0"},
		{"kty": "XYZ", "kid": kid},
	}
	for i := range 500 {
		keys = append(keys, map[string]any{"kty": "XYZ", "kid": fmt.Sprintf("odd-%d", i)})
	}
	return keys
}
