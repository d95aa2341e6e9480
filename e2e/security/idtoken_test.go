package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS30DefectiveIDTokenIsRefused: an ID token with any single defect logs no user in.
func TestS30DefectiveIDTokenIsRefused(t *testing.T) {
	w := shared(t)
	w.reloadVariants(t) // a new configuration has not used up its log line of this minute
	// One of the defects is the nonce of another login: this login is still running.
	running := w.browser()
	running.approve(t, running.start(t, "/running"))
	for _, defect := range fakeas.Defects() {
		if defect == fakeas.DefectACR || defect == fakeas.DefectAuthTime {
			continue // a defect only where requested: see TestS30RequestedClaimsAreChecked
		}
		t.Run(string(defect), func(t *testing.T) {
			w.idp.Set(func(k *fakeas.Knobs) { k.LoginIDToken = fakeas.TokenEdit{Defect: defect} })
			b := w.browser()
			page, err := b.Visit(t.Context(), w.site+"/x")
			if err != nil {
				t.Fatal(err)
			}
			checkNoLogin(t, page, b.session(), http.StatusBadGateway)
			w.checkGenericPage(t, page.Body)
		})
	}
	if log := w.instances[0].Log(t); !strings.Contains(log, "checking ID token") {
		t.Error("the log does not name the reason")
	}
}

// checkGenericPage checks that a page reveals no address, package, file or internal error
// text.
func (w *world) checkGenericPage(t testing.TB, body []byte) {
	t.Helper()
	for _, word := range []string{
		w.idp.URL, strings.TrimPrefix(w.idp.URL, "http://"), "127.0.0.1:", "dial", "tcp", "oauth:", "session:", "handler.", "goroutine",
		"signature", "kid", "nonce", ".go:", "caddy", "Caddy", "/tmp/", "sessions.db", "github.com", "%!",
	} {
		if strings.Contains(string(body), word) {
			t.Errorf("the page contains %q: %s", word, body)
		}
	}
}

// TestS30RequestedClaimsAreChecked: the site checks acr and auth_time if it requests them.
// OpenID Connect lets a server answer acr_values with less, so an operator demands an acr
// with `require`.
func TestS30RequestedClaimsAreChecked(t *testing.T) {
	w := shared(t)
	v := &variant{name: "requested", options: "authorize_param max_age 60\n\tauthorize_param acr_values gold\n\trequire acr gold"}
	w.addVariants(t, v)
	v.login(t, w.browser(), "good")
	for name, tc := range map[string]struct {
		edit   fakeas.TokenEdit
		status int
	}{
		"old auth_time": {fakeas.TokenEdit{Defect: fakeas.DefectAuthTime}, http.StatusBadGateway},
		"no auth_time":  {fakeas.TokenEdit{Claims: fakeas.Edit{Omit: []string{"auth_time"}}}, http.StatusBadGateway},
		"other acr":     {fakeas.TokenEdit{Defect: fakeas.DefectACR}, http.StatusForbidden},
		"no acr":        {fakeas.TokenEdit{Claims: fakeas.Edit{Omit: []string{"acr"}}}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			v.idp.Set(func(k *fakeas.Knobs) { k.LoginIDToken = tc.edit })
			page := v.signIn(t, w.browser(), "bad")
			checkNoLogin(t, page, "", tc.status)
		})
	}
}

// TestS33OddKeysCostOnlyThemselves: unusable keys in the key set do not hide the right
// one.
func TestS33OddKeysCostOnlyThemselves(t *testing.T) {
	w := shared(t)
	var all []*variant
	for _, alg := range []string{"ES256", "RS256"} {
		idp := fakeas.Start(t, fakeas.Options{})
		idp.Set(func(k *fakeas.Knobs) { k.SigningAlg, k.ExtraKeys = alg, fakeas.OddKeys("key-1") })
		all = append(all, &variant{name: "jwks-" + strings.ToLower(alg), idp: idp})
	}
	w.addVariants(t, all...)
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) { v.login(t, w.browser(), "u") })
	}
}

// A signer signs in place of the authorization server. The test publishes its key.
type signer struct {
	jose.Signer
	public map[string]any
}

func newSigner(t *testing.T, kid string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: "ES256", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	s := signer{Signer: made}
	if err := json.Unmarshal(text, &s.public); err != nil {
		t.Fatal(err)
	}
	return s
}

// signAgain signs the claims of a JWT with the signer's key.
func (s signer) signAgain(token string) string {
	signed, err := s.Sign(decodeSegment(token, 1))
	if err != nil {
		return ""
	}
	compact, _ := signed.CompactSerialize() // an empty ID token fails the login
	return compact
}

// decodeSegment returns segment i of a JWT, decoded.
func decodeSegment(token string, i int) []byte {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	text, _ := base64.RawURLEncoding.DecodeString(parts[i]) // nil if it is not base64url
	return text
}

// TestS34RotatedServerKeyIsFound: the site finds a new key, no longer trusts a withdrawn
// one, and keeps working while the key set cannot be fetched. Here an unknown key causes
// the fetch; by age a key set is fetched again after five minutes at the earliest.
func TestS34RotatedServerKeyIsFound(t *testing.T) {
	w := shared(t)
	old := newSigner(t, "old")
	var useOld atomic.Bool
	v := &variant{name: "rotation"}
	w.addVariants(t, v)
	fetches := v.awaitStartChecks(t)
	v.idp.Set(func(k *fakeas.Knobs) {
		k.ExtraKeys = []map[string]any{old.public}
		k.Mutate = func(_ string, answer map[string]any) {
			if useOld.Load() {
				signed := old.signAgain(answer["id_token"].(string))
				w.addSecret(tail(signed))
				answer["id_token"] = signed
			}
		}
	})
	useOld.Store(true)
	v.login(t, w.browser(), "u")
	useOld.Store(false)
	v.login(t, w.browser(), "u")
	if n := fetches(); n != 1 {
		t.Errorf("two logins, one with a key of after the start: got %d fetches of the keys, want 1", n)
	}

	v.idp.Set(func(k *fakeas.Knobs) { k.ExtraKeys = nil })
	v.idp.RotateKey()
	v.login(t, w.browser(), "u")
	if n := fetches(); n != 2 {
		t.Errorf("new key: got %d fetches of the keys, want 1", n-1)
	}
	useOld.Store(true)
	b := w.browser()
	checkNoLogin(t, v.signIn(t, b, "u"), v.session(b), http.StatusBadGateway)
	useOld.Store(false)

	v.idp.Fail(fakeas.LoseRequest().At(fakeas.EndpointJWKS).Repeat(-1))
	v.login(t, w.browser(), "u")
	if n := fetches(); n > 2+3 {
		t.Errorf("made-up keys: got %d fetches of the keys, want at most 3", n-2)
	}
}

// TestS37UserInfoOfAnotherUserIsRefused: claims from the UserInfo endpoint are used only
// if the answer is readable and names the user of the ID token.
func TestS37UserInfoOfAnotherUserIsRefused(t *testing.T) {
	w := shared(t)
	v := &variant{name: "userinfo", options: "userinfo"}
	w.addVariants(t, v)
	v.idp.Set(func(k *fakeas.Knobs) { k.UserInfo.Set = map[string]any{"email": "by-userinfo@example.test"} })
	if seen, _ := appAnswer(v.login(t, w.browser(), "u")); !slices.Equal(seen.Values("X-Email"), []string{"by-userinfo@example.test"}) {
		t.Fatalf("the app got email %q, want the one from UserInfo", seen.Values("X-Email"))
	}
	refused := map[string]any{"sub": "u", "email": "evil@example.test"}
	jwt := newSigner(t, "userinfo")
	claims, _ := json.Marshal(refused) // strings always marshal
	signed, err := jwt.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	compact, _ := signed.CompactSerialize()
	for name, falsify := range map[string]func(){
		"other sub": func() {
			v.idp.Set(func(k *fakeas.Knobs) { k.UserInfo.Set["sub"] = "mallory" })
		},
		"no sub": func() { v.idp.Set(func(k *fakeas.Knobs) { k.UserInfo.Omit = []string{"sub"} }) },
		"signed": func() {
			v.idp.Fail(fakeas.Answer(http.StatusOK, "application/jwt", compact).At(fakeas.EndpointUserInfo))
		},
		"HTML": func() {
			v.idp.Fail(fakeas.Answer(http.StatusOK, "text/html", "<html>"+string(claims)+"</html>").At(fakeas.EndpointUserInfo))
		},
		"refused": func() {
			v.idp.Fail(fakeas.Answer(http.StatusUnauthorized, "application/json", string(claims)).At(fakeas.EndpointUserInfo))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v.idp.Set(func(k *fakeas.Knobs) {
				k.UserInfo = fakeas.Edit{Set: map[string]any{"email": "evil@example.test"}}
			})
			falsify()
			b := w.browser()
			checkNoLogin(t, v.signIn(t, b, "u"), v.session(b), http.StatusBadGateway)
		})
	}
	for _, r := range v.app.Requests() {
		if slices.Contains(r.Values("X-Email"), "evil@example.test") {
			t.Error("the app got a claim of a refused answer")
		}
	}
}

// A claimCase is one claim of a user and whether the variant admits that user.
type claimCase struct {
	v      *variant
	claim  string
	value  any // nil: the claim is missing
	passes bool
}

// claimCases returns claims for variants with a rule each about email, email_verified and groups.
func claimCases(email, verified, groups *variant) []claimCase {
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("group-%d", i)
	}
	return []claimCase{
		{email, "email", "a@corp.test", true},
		{email, "email", "a@evil.test@corp.test", false},
		{email, "email", "a@CORP.TEST", false},
		{email, "email", "a@corp.test.evil.test", false},
		{email, "email", " a@corp.test", false},
		{email, "email", "a@corp.test\x00", false},
		{email, "email", "a@corp.test\n", false},
		{email, "email", nil, false},
		{email, "Email", "a@corp.test", false},
		{email, "email", map[string]any{"email": "a@corp.test"}, false},
		{verified, "email_verified", true, true},
		{verified, "email_verified", "true", true},
		{verified, "email_verified", false, false},
		{verified, "email_verified", "True", false},
		{verified, "email_verified", 1, false},
		{verified, "email_verified", nil, false},
		{groups, "groups", []string{"users", "admin"}, true},
		{groups, "groups", "admin", true},
		{groups, "groups", "users admin", false},
		{groups, "groups", "users,admin", false},
		{groups, "groups", 7, false},
		{groups, "groups", map[string]any{"admin": true}, false},
		{groups, "groups", []any{[]string{"admin"}}, false},
		{groups, "groups", []any{map[string]any{"name": "admin"}}, false},
		{groups, "groups", json.RawMessage("null"), false},
		{groups, "groups", []any{nil, 1, true}, false},
		{groups, "groups", many, false},
		{groups, "groups", append(slices.Clone(many), "admin"), false}, // exceeds the size limit of a token
		{groups, "groups", []string{"admin "}, false},
		{groups, "groups", []string{"Admin"}, false},
		{groups, "groups", []string{"ａｄｍｉｎ"}, false},
		{groups, "groups", []string{"admin\u200b"}, false},
		{groups, "groups", []string{}, false},
		{groups, "groups", nil, false},
	}
}

// TestS38ClaimsAreComparedWhole: `require` compares whole values and fails closed. The
// text "true" is documented to match true, because some servers send it so.
func TestS38ClaimsAreComparedWhole(t *testing.T) {
	w := shared(t)
	email := &variant{name: "rule-email", options: "require email a@corp.test"}
	verified := &variant{name: "rule-verified", options: "require email_verified true"}
	groups := &variant{name: "rule-groups", options: "require groups admin"}
	w.addVariants(t, email, verified, groups)
	for i, tc := range claimCases(email, verified, groups) {
		text, _ := json.Marshal(tc.value)
		t.Run(fmt.Sprintf("%s %.40s", tc.claim, text), func(t *testing.T) {
			user := fakeas.User{Name: fmt.Sprintf("user-%d", i), Claims: map[string]any{"name": "A User"}}
			if tc.value != nil {
				user.Claims[tc.claim] = tc.value
			}
			tc.v.idp.SetUser(user)
			if tc.passes {
				tc.v.login(t, w.browser(), user.Name)
				return
			}
			checkNoLogin(t, tc.v.signIn(t, w.browser(), user.Name), "", http.StatusForbidden, http.StatusBadGateway)
		})
	}
}
