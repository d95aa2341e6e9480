package fakeas

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// TestAssertionWithOneDefectIsRefused: the server accepts an assertion once, and only in
// the form of the draft rfc7523bis.
func TestAssertionWithOneDefectIsRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(header, claims map[string]any)
		key    *ecdsa.PrivateKey
		want   int
	}{
		"good":            {func(_, _ map[string]any) {}, key, 200},
		"other key":       {func(_, _ map[string]any) {}, other, 401},
		"unknown kid":     {func(h, _ map[string]any) { h["kid"] = "x" }, key, 401},
		"typ":             {func(h, _ map[string]any) { h["typ"] = "JWT" }, key, 401},
		"token endpoint":  {func(_, c map[string]any) { c["aud"] = c["aud"].(string) + "/token" }, key, 401},
		"aud as an array": {func(_, c map[string]any) { c["aud"] = []any{c["aud"]} }, key, 401},
		"iss":             {func(_, c map[string]any) { c["iss"] = "x" }, key, 401},
		"sub":             {func(_, c map[string]any) { c["sub"] = "x" }, key, 401},
		"no jti":          {func(_, c map[string]any) { delete(c, "jti") }, key, 401},
		"no exp":          {func(_, c map[string]any) { delete(c, "exp") }, key, 401},
		"long":            {func(_, c map[string]any) { c["exp"] = time.Now().Add(time.Hour).Unix() }, key, 401},
		"expired":         {func(_, c map[string]any) { c["exp"] = time.Now().Unix() - 1 }, key, 401},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.client = Client{ID: "app", AuthMethod: AuthPrivateKeyJWT, RedirectURIs: []string{callbackURI}}
			g.as.AddClient(g.client)
			g.as.SetAssertionKeys("app", map[string]crypto.PublicKey{"k": key.Public()})
			token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
				"iss": "app", "sub": "app", "aud": g.as.URL, "jti": rand.Text(),
				"iat": time.Now().Unix(), "exp": time.Now().Unix() + 60,
			})
			token.Header["typ"], token.Header["kid"] = "client-authentication+jwt", "k"
			tc.change(token.Header, token.Claims.(jwt.MapClaims))
			assertion, err := token.SignedString(tc.key)
			if err != nil {
				t.Fatal(err)
			}
			redeem := func() int {
				return g.post("/token", url.Values{
					"grant_type": {GrantCode}, "code": {g.authorize().Get("code")}, "redirect_uri": {callbackURI}, "code_verifier": {verifier},
					"client_id": {"app"}, "client_assertion_type": {jwtBearer}, "client_assertion": {assertion},
				}, func(r *http.Request) { r.Header.Del("Authorization") }).status
			}
			if got := redeem(); got != tc.want {
				t.Errorf("got status %d, want %d", got, tc.want)
			}
			if got := redeem(); got != 401 {
				t.Errorf("second use: got status %d, want 401", got)
			}
		})
	}
}
