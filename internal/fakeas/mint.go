package fakeas

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// accessToken issues an access token. It needs s.mu.
func (s *Server) accessToken(k Knobs, f *family, scope []string) (string, error) {
	now := time.Now()
	expires := now.Add(k.AccessTokenLifetime)
	id := canary("AT_")
	if k.AccessTokenFormat != FormatJWT {
		token := id + strings.Repeat("x", max(0, k.AccessTokenSize-len(id)))
		s.ledger.add(KindAccess, token, f, expires)
		return token, nil
	}
	claims := map[string]any{
		"iss": s.issuer(k), "sub": s.user(f.user).Subject, "client_id": f.client.ID, "jti": id,
		"aud": audience(f), "scope": strings.Join(scope, " "),
		"iat": k.stamp(now), "exp": k.stamp(expires),
	}
	token, err := s.sign(k, "at+jwt", claims, f, "", TokenEdit{})
	if err == nil && len(token) < k.AccessTokenSize {
		// Base64 encodes three bytes as four characters.
		claims["pad"] = strings.Repeat("x", (k.AccessTokenSize-len(token))*3/4+1)
		token, err = s.sign(k, "at+jwt", claims, f, "", TokenEdit{})
	}
	if err != nil {
		return "", err
	}
	s.ledger.add(KindAccess, token, f, expires)
	return token, nil
}

// audience returns the audience of access tokens: the requested one, or else the
// client.
func audience(f *family) any {
	switch len(f.audience) {
	case 0:
		return f.client.ID
	case 1:
		return f.audience[0]
	}
	return f.audience
}

// idToken issues an ID token (OpenID Connect Core, sections 2 and 12.2). It
// needs s.mu.
func (s *Server) idToken(k Knobs, grant string, f *family, access string, edit TokenEdit) (string, error) {
	user := s.user(f.user)
	now := time.Now()
	claims := s.claims(k, user)
	for name, value := range map[string]any{
		"iss": s.issuer(k), "sub": user.Subject, "aud": f.client.ID, "sid": f.id, "jti": canary("jti_"),
		"iat": k.stamp(now), "exp": k.stamp(now.Add(k.IDTokenLifetime)), "auth_time": k.stamp(f.authTime),
		"at_hash": atHash(k.SigningAlg, access),
	} {
		claims[name] = value
	}
	if f.nonce != "" {
		claims["nonce"] = f.nonce
	}
	if f.acr != "" {
		claims["acr"], _, _ = strings.Cut(f.acr, " ")
	}
	if grant == GrantRefresh {
		claims["sub"] = cmp.Or(k.RefreshSubject, user.Subject)
	}
	token, err := s.sign(k, "JWT", claims, f, access, edit)
	if err != nil {
		return "", err
	}
	s.ledger.add(KindID, token, f, now.Add(k.IDTokenLifetime))
	return token, nil
}

// stamp converts a time to seconds and adds the server's ClockOffset.
func (k Knobs) stamp(t time.Time) int64 { return t.Add(k.ClockOffset).Unix() }

// atHash returns the left half of the access token's hash (OpenID Connect Core,
// section 3.1.3.6). The specification names no hash for EdDSA; implementations
// use SHA-512.
func atHash(alg, access string) string {
	if alg == "EdDSA" {
		sum := sha512.Sum512([]byte(access))
		return base64.RawURLEncoding.EncodeToString(sum[:32])
	}
	sum := sha256.Sum256([]byte(access))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// text converts a value of an Edit to the text of a parameter or string claim.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.RawMessage:
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
		return string(v)
	}
	return fmt.Sprint(v)
}

// nonces holds the nonces of the last 100 logins. Callers hold Server.mu.
type nonces struct{ last []string }

func (n *nonces) add(nonce string) {
	if nonce == "" {
		return
	}
	n.last = append(n.last, nonce)
	n.last = n.last[max(0, len(n.last)-100):]
}

// other returns the latest nonce other than the given one, or a random one.
func (n *nonces) other(nonce string) string {
	for i := len(n.last) - 1; i >= 0; i-- {
		if n.last[i] != nonce {
			return n.last[i]
		}
	}
	return rand.Text()
}
