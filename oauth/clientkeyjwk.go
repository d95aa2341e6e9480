package oauth

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// maxKeyID limits a kid, which is sent with each assertion.
const maxKeyID = 256

// parsePrivateJWKs reads a JWK or a JWK Set with private keys (RFC 7517). Unlike a
// server's set, it may hold no key that is of no use: the operator has written it.
func parsePrivateJWKs(content []byte) ([]clientKey, error) {
	members, err := parseObject(content)
	if err != nil {
		return nil, errors.New("begins like a JSON Web Key, but is not valid JSON")
	}
	list := []json.RawMessage{content}
	if raw, ok := members["keys"]; ok {
		list = nil
		if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
			return nil, errors.New("is a JSON Web Key Set without keys")
		}
	}
	var keys []clientKey
	for i, raw := range list {
		key, err := parsePrivateJWK(raw)
		if err != nil {
			return nil, numbered(err, i, len(list))
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// parsePrivateJWK reads one key. It passes only the key material to go-jose, whose
// errors may quote a member.
func parsePrivateJWK(raw json.RawMessage) (clientKey, error) {
	members, err := parseObject(raw)
	if err != nil {
		return clientKey{}, errors.New("is not a JSON object")
	}
	if err := checkJWKPurpose(members); err != nil {
		return clientKey{}, err
	}
	material := make(map[string]json.RawMessage)
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y", "d", "p", "q", "dp", "dq", "qi"} {
		if v, ok := members[name]; ok {
			material[name] = v
		}
	}
	data, err := json.Marshal(material)
	if err != nil {
		return clientKey{}, err
	}
	var jwk jose.JSONWebKey
	err = jwk.UnmarshalJSON(data)
	private, ok := jwk.Key.(crypto.Signer)
	switch {
	case errors.Is(err, jose.ErrUnsupportedKeyType):
		return clientKey{}, errUnknownKey
	case err != nil || !ok:
		return clientKey{}, errors.New("is a JSON Web Key with missing or invalid members")
	}
	key := clientKey{private: private}
	if key.alg, err = jwkText(members, "alg"); err != nil {
		return clientKey{}, err
	}
	if key.id, err = jwkText(members, "kid"); err != nil {
		return clientKey{}, err
	}
	key.certificate, err = jwkCertificate(members)
	return key, err
}

// checkJWKPurpose refuses keys that cannot or must not sign (RFC 7517 sections 4.2 and
// 4.3).
func checkJWKPurpose(members map[string]json.RawMessage) error {
	kty, _ := stringMember(members, "kty")
	use, hasUse := stringMember(members, "use")
	switch {
	case kty == "":
		return errors.New("is JSON, but not a JSON Web Key: kty is missing")
	case kty == "oct":
		return errors.New("is a symmetric key: give a private key, or use client_secret_jwt with client_secret")
	case members["d"] == nil:
		return errPublicKey
	case hasUse && use != "sig":
		return errors.New("has a use other than sig")
	case members["key_ops"] != nil && !slices.Contains(stringsMember(members, "key_ops"), "sign"):
		return errors.New("has key_ops without sign")
	}
	return nil
}

// jwkText returns a member that is sent to the server. It returns "" if it is missing.
func jwkText(members map[string]json.RawMessage, name string) (string, error) {
	raw, ok := members[name]
	if !ok {
		return "", nil
	}
	text, ok := stringMember(members, name)
	if !ok || len(raw) > maxKeyID || text == "" || !isPrintable(text) {
		return "", errors.New("has a " + name + " that is not a short text of printable ASCII")
	}
	return text, nil
}

// jwkCertificate returns the x5t#S256 of the key's certificate, which may be given as
// such or as x5c (RFC 7517 sections 4.7 and 4.9).
func jwkCertificate(members map[string]json.RawMessage) ([]byte, error) {
	if text, ok := stringMember(members, "x5t#S256"); ok {
		thumbprint, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || len(thumbprint) != sha256.Size {
			return nil, errors.New("has an x5t#S256 that is not a SHA-256 hash in base64url")
		}
		return thumbprint, nil
	}
	chain := stringsMember(members, "x5c")
	if len(chain) == 0 {
		return nil, nil
	}
	der, err := base64.StdEncoding.DecodeString(chain[0])
	if err != nil {
		return nil, errors.New("has an x5c that is not base64")
	}
	thumbprint := sha256.Sum256(der)
	return thumbprint[:], nil
}
