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

// TokenEdit spoils a signed token: first the defect, then the edits.
type TokenEdit struct {
	Defect Defect `json:"defect,omitempty"`
	Header Edit   `json:"header"`
	Claims Edit   `json:"claims"`
}

// draft is a token about to be signed.
type draft struct {
	header, claims map[string]any
	method         jwt.SigningMethod
	key            any
	// finish changes the serialised token, if set.
	finish func(string) string

	// What defects draw from.
	client     Client
	access     string
	otherNonce string
	own        *signingKey
	stranger   *signingKey
	strangerEC *signingKey
}

// sign makes a JWT of the given type. It needs s.mu.
func (s *Server) sign(k Knobs, typ string, claims map[string]any, f *family, access string, edit TokenEdit) (string, error) {
	own, err := s.keys.use(k.SigningAlg)
	if err != nil {
		return "", err
	}
	d := &draft{
		header: map[string]any{"alg": own.alg, "kid": own.kid, "typ": typ},
		claims: maps.Clone(claims),
		method: jwt.GetSigningMethod(own.alg), key: own.private,
		client: f.client, access: access, otherNonce: s.nonces.other(f.nonce), own: own,
	}
	if edit.Defect != "" {
		spoil, ok := defects[edit.Defect]
		if !ok {
			return "", fmt.Errorf("unknown defect %q", edit.Defect)
		}
		if d.stranger, err = s.keys.stranger(own.alg); err != nil {
			return "", err
		}
		if d.strangerEC, err = s.keys.stranger("ES256"); err != nil {
			return "", err
		}
		spoil(d)
	}
	edit.Header.apply(d.header)
	edit.Claims.apply(d.claims)
	return d.serialise()
}

// serialise is the compact form (RFC 7515, section 7.1), made by hand because
// a JWT library would not write most of the defects.
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
	if d.finish != nil {
		token = d.finish(token)
	}
	return token, nil
}

// hmac makes the token be signed with HS256, the classic confusion.
func (d *draft) hmac(secret []byte) {
	d.header["alg"] = "HS256"
	d.method, d.key = jwt.SigningMethodHS256, secret
}

func (d *draft) publicDER() []byte {
	der, err := x509.MarshalPKIXPublicKey(d.own.private.Public())
	if err != nil {
		panic(err) // only for key types that keys.go does not make
	}
	return der
}

func (d *draft) publicPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: d.publicDER()})
}
