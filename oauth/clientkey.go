package oauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxKeyFile limits a file with client keys, in bytes.
	maxKeyFile = 64 << 10
	// maxClientKeys limits the keys of one file. A rotation needs two.
	maxClientKeys = 8
)

// clientKeys are the private keys of the client. The first one signs, and the public
// part of each is published. They are immutable.
type clientKeys struct {
	keys   []clientKey
	public json.RawMessage // a JSON Web Key Set (RFC 7517 section 5)
}

// clientKey is one private key.
type clientKey struct {
	// id is the kid of the JWK, or the thumbprint of RFC 7638.
	id string
	// alg is the alg of the JWK, which the operator has chosen. Empty: see signingAlg.
	alg string
	// certificate is the x5t#S256 of the key's certificate (RFC 7515 section 4.1.8), or
	// nil.
	certificate []byte
	private     crypto.Signer // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
}

// parseClientKeys reads private keys from PEM blocks, a JWK or a JWK Set. Its errors
// contain nothing of the content.
func parseClientKeys(content []byte) (clientKeys, error) {
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))
	parse := parsePEMKeys
	if bytes.HasPrefix(content, []byte("{")) {
		parse = parsePrivateJWKs
	}
	keys, err := parse(content)
	if err != nil {
		return clientKeys{}, err
	}
	if len(keys) > maxClientKeys {
		return clientKeys{}, fmt.Errorf("holds more than %d keys", maxClientKeys)
	}
	for i := range keys {
		if err := keys[i].complete(); err != nil {
			return clientKeys{}, numbered(err, i, len(keys))
		}
	}
	return newClientKeys(keys)
}

// numbered names the key of an error if there are several.
func numbered(err error, i, of int) error {
	if of > 1 {
		return fmt.Errorf("key %d: %w", i+1, err)
	}
	return err
}

func newClientKeys(keys []clientKey) (clientKeys, error) {
	var set jose.JSONWebKeySet
	for i, key := range keys {
		if slices.ContainsFunc(keys[:i], func(k clientKey) bool { return k.id == key.id }) {
			return clientKeys{}, fmt.Errorf("key %d: has the same kid as a key before it", i+1)
		}
		set.Keys = append(set.Keys, key.publicJWK())
	}
	public, err := json.Marshal(set)
	return clientKeys{keys: keys, public: public}, err
}

// publicJWK returns the public part. It has an alg only if the key can have no other:
// a server may refuse a key whose alg differs from that of the signature.
func (k clientKey) publicJWK() jose.JSONWebKey {
	jwk := jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: k.alg, Use: "sig", CertificateThumbprintSHA256: k.certificate}
	if algs := k.algorithms(); jwk.Algorithm == "" && len(algs) == 1 {
		jwk.Algorithm = algs[0]
	}
	return jwk
}

// complete refuses weak and inconsistent keys. It sets the id of a key without one.
func (k *clientKey) complete() error {
	if err := checkStrength(k.private); err != nil {
		return err
	}
	algs := k.algorithms()
	if k.alg != "" && !slices.Contains(algs, k.alg) {
		return fmt.Errorf("has the alg %s, but such a key signs with %s only", quote(k.alg), strings.Join(algs, ", "))
	}
	// A damaged key makes signatures that its public part does not verify.
	method := signingMethod(algs[0])
	signature, err := method.Sign("test", k.private)
	if err == nil {
		err = method.Verify("test", signature, k.private.Public())
	}
	if err != nil {
		return errors.New("is inconsistent: its private and its public part do not belong together")
	}
	if k.id == "" {
		thumbprint, err := (&jose.JSONWebKey{Key: k.private.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			return err
		}
		k.id = base64.RawURLEncoding.EncodeToString(thumbprint)
	}
	return nil
}

func checkStrength(key crypto.Signer) error {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("is an RSA key of %d bits: it must have %d (RFC 7518 section 3.3) to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PrivateKey:
		if curve := k.Curve.Params().Name; curveAlgorithms[curve] == "" {
			return fmt.Errorf("has the curve %s: use P-256, P-384 or P-521 (RFC 7518 section 3.4)", curve)
		}
		return nil
	case ed25519.PrivateKey:
		return nil
	}
	return errUnknownKey
}

var errUnknownKey = errors.New("is not an RSA, EC or Ed25519 key")

// curveAlgorithms has the algorithm of each curve (RFC 7518 section 3.4).
var curveAlgorithms = map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

// algorithms lists the algorithms of a key in order of preference: RFC 7518 section
// 3.1, RFC 8037 section 3.1, and RFC 9864 section 2.2 for the name Ed25519.
func (k clientKey) algorithms() []string {
	switch key := k.private.(type) {
	case *rsa.PrivateKey:
		return []string{"PS256", "RS256", "PS384", "RS384", "PS512", "RS512"}
	case *ecdsa.PrivateKey:
		return []string{curveAlgorithms[key.Curve.Params().Name]}
	}
	return []string{"EdDSA", "Ed25519"}
}

// signingAlg returns the algorithm with which the key signs: that of the JWK, or else
// the first one that the server lists. A server that lists none gets RS256 from an RSA
// key, the algorithm that servers of OpenID Connect should support (Discovery section
// 3).
func (k clientKey) signingAlg(listed []string) (string, error) {
	algs := k.algorithms()
	_, isRSA := k.private.(*rsa.PrivateKey)
	switch {
	case k.alg != "":
		return k.alg, nil
	case len(listed) == 0 && isRSA:
		return "RS256", nil
	case len(listed) == 0:
		return algs[0], nil
	}
	for _, alg := range algs {
		if slices.Contains(listed, alg) {
			return alg, nil
		}
	}
	return "", fmt.Errorf("the key signs with %s, but the server's metadata lists %s in token_endpoint_auth_signing_alg_values_supported",
		strings.Join(algs, ", "), quote(strings.Join(listed, ", ")))
}

// signingMethod returns the implementation of an algorithm of a clientKey.
func signingMethod(alg string) jwt.SigningMethod {
	if alg == "Ed25519" {
		return jwt.SigningMethodEdDSA
	}
	return jwt.GetSigningMethod(alg)
}
