package fakeas

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"

	"github.com/golang-jwt/jwt/v5"
)

// TokenEdit changes a signed token: the defect first, then the edits.
type TokenEdit struct {
	Defect Defect `json:"defect,omitempty"`
	Header Edit   `json:"header"`
	Claims Edit   `json:"claims"`
}

// draft is a token before its signature.
type draft struct {
	header, claims map[string]any
	method         jwt.SigningMethod // nil: no signature
	key            any
	// transform changes the serialised token, if set.
	transform func(string) string

	// The values that defects put into the token.
	client        Client
	access        string
	otherNonce    string
	signer        *signingKey
	unpublished   *signingKey
	unpublishedEC *signingKey
}

// sign returns a JWT of the given type. It needs s.mu.
func (s *Server) sign(k Knobs, typ string, claims map[string]any, f *family, access string, edit TokenEdit) (string, error) {
	signer, err := s.keys.signer(k.SigningAlg)
	if err != nil {
		return "", err
	}
	d := &draft{
		header: map[string]any{"alg": signer.alg, "kid": signer.kid, "typ": typ},
		claims: maps.Clone(claims),
		method: jwt.GetSigningMethod(signer.alg), key: signer.private,
		client: f.client, access: access, otherNonce: s.nonces.other(f.nonce), signer: signer,
	}
	if edit.Defect != "" {
		spoil, ok := defects[edit.Defect]
		if !ok {
			return "", fmt.Errorf("unknown defect %q", edit.Defect)
		}
		if d.unpublished, err = s.keys.unpublishedKey(signer.alg); err != nil {
			return "", err
		}
		if d.unpublishedEC, err = s.keys.unpublishedKey("ES256"); err != nil {
			return "", err
		}
		spoil(d)
	}
	edit.Header.apply(d.header)
	edit.Claims.apply(d.claims)
	return d.serialise()
}

// serialise returns the compact form (RFC 7515, section 7.1). A JWT library
// could not produce most of the defects.
func (d *draft) serialise() (string, error) {
	header, err := json.Marshal(d.header)
	if err != nil {
		return "", fmt.Errorf("encoding token header: %w", err)
	}
	claims, err := json.Marshal(d.claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	token := b64(header) + "." + b64(claims)
	var signature []byte
	if d.method != nil {
		if signature, err = d.method.Sign(token, d.key); err != nil {
			return "", fmt.Errorf("signing: %w", err)
		}
	}
	token += "." + b64(signature)
	if d.transform != nil {
		token = d.transform(token)
	}
	return token, nil
}

// useHMAC signs the token with HS256. A client with an algorithm confusion
// accepts it.
func (d *draft) useHMAC(secret []byte) {
	d.header["alg"] = "HS256"
	d.method, d.key = jwt.SigningMethodHS256, secret
}

func (d *draft) publicDER() []byte {
	der, err := x509.MarshalPKIXPublicKey(d.signer.private.Public())
	if err != nil {
		panic(err) // cannot happen for the key types of generate
	}
	return der
}

func (d *draft) publicPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: d.publicDER()})
}
