package security

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

func set(name string, value any) fakeas.TokenEdit {
	return fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{name: value}}}
}

// TestS36ForeignIDTokenEndsTheSession: if the ID token of a refresh proves to belong to
// another login, the session ends, and the app never receives the new access token.
func TestS36ForeignIDTokenEndsTheSession(t *testing.T) {
	w := shared(t)
	refused := map[string]fakeas.TokenEdit{
		"other-sub": set("sub", "mallory"), "other-iss": {Defect: fakeas.DefectIssuer},
		"other-aud": {Defect: fakeas.DefectAudience}, "other-azp": {Defect: fakeas.DefectAZP},
		"other-nonce":       {Defect: fakeas.DefectNonce},
		"other-sub-expired": {Defect: fakeas.DefectExpired, Claims: set("sub", "mallory").Claims},
	}
	var all []*variant
	for name := range refused {
		all = append(all, &variant{name: name})
	}
	w.addVariants(t, all...)
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			announceLifetimes(v.idp, 2, 300)
			v.idp.Set(func(k *fakeas.Knobs) { k.RefreshIDToken = refused[v.name] })
			b := w.browser()
			v.login(t, b, "u")
			second := func() bool {
				issued := issuedTokens(v.idp, fakeas.KindAccess, "u")
				return len(issued) > 1 && appReceived(v.app, issued[1])
			}
			eventually(t, "end of the session", func() bool {
				return v.get(t, b, "/x").Status == http.StatusUnauthorized || second()
			})
			if second() {
				t.Fatal("the app got the access token of the refused refresh")
			}
			eventually(t, "revocation of the new tokens", func() bool {
				return slices.ContainsFunc(v.idp.Log(fakeas.EndpointRevoke), func(e fakeas.Entry) bool { return e.Status == http.StatusOK })
			})
			if n := v.refreshes(); n != 1 {
				t.Errorf("got %d refreshes, want 1", n)
			}
		})
	}
}

// TestS36UnverifiableIDTokenEndsNothing: if the ID token of a refresh cannot be verified,
// the new access token is used, and the claims stay as they were.
func TestS36UnverifiableIDTokenEndsNothing(t *testing.T) {
	w := shared(t)
	kept := map[string]fakeas.TokenEdit{
		"no-sub": {Defect: fakeas.DefectNoSubject}, "further-aud": {Defect: fakeas.DefectAudienceOther},
		"older-auth-time": {Defect: fakeas.DefectAuthTime}, "other-key": {Defect: fakeas.DefectKey}, "unknown-key": {Defect: fakeas.DefectKeyID},
		"expired": {Defect: fakeas.DefectExpired}, "later": {Defect: fakeas.DefectIssuedLater}, "large": set("x", strings.Repeat("x", 65<<10)),
	}
	var all []*variant
	for name := range kept {
		all = append(all, &variant{name: "kept-" + name})
	}
	w.addVariants(t, all...)
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			announceLifetimes(v.idp, 2, 300)
			v.idp.Set(func(k *fakeas.Knobs) {
				k.RefreshIDToken = kept[strings.TrimPrefix(v.name, "kept-")]
				k.RefreshIDToken.Claims.Set = maps.Clone(k.RefreshIDToken.Claims.Set)
				if k.RefreshIDToken.Claims.Set == nil {
					k.RefreshIDToken.Claims.Set = map[string]any{}
				}
				k.RefreshIDToken.Claims.Set["email"] = "new@example.test"
			})
			b := w.browser()
			v.login(t, b, "u")
			eventually(t, "new token at the app", func() bool {
				resp := v.get(t, b, "/x")
				seen, ok := appAnswer(resp)
				if !ok || resp.Status != http.StatusOK {
					t.Fatalf("got %v, want 200", resp)
				}
				if email := seen.Values("X-Email"); !slices.Equal(email, []string{"u@example.test"}) {
					t.Fatalf("the app got email %q, want the former one", email)
				}
				issued := issuedTokens(v.idp, fakeas.KindAccess, "u")
				return len(issued) > 1 && appReceived(v.app, issued[1])
			})
			if n := v.refreshes(); n != 1 {
				t.Errorf("got %d refreshes, want 1", n)
			}
		})
	}
}

// TestS36NewestClaimsReplaceTheFormer: the ID token of a refresh replaces the claims; a claim that it
// omits is gone.
func TestS36NewestClaimsReplaceTheFormer(t *testing.T) {
	w := shared(t)
	changed := &variant{name: "new-email"}
	removed := &variant{name: "no-groups", options: "require groups users"}
	w.addVariants(t, changed, removed)
	t.Run("new email", func(t *testing.T) {
		t.Parallel()
		announceLifetimes(changed.idp, 2, 300)
		changed.idp.Set(func(k *fakeas.Knobs) { k.RefreshIDToken = set("email", "new@example.test") })
		b := w.browser()
		if seen, _ := appAnswer(changed.login(t, b, "u")); !slices.Equal(seen.Values("X-Email"), []string{"u@example.test"}) {
			t.Errorf("before the refresh: the app got email %q", seen.Values("X-Email"))
		}
		eventually(t, "new email at the app", func() bool {
			seen, _ := appAnswer(changed.get(t, b, "/x"))
			return slices.Equal(seen.Values("X-Email"), []string{"new@example.test"})
		})
	})
	t.Run("no groups", func(t *testing.T) {
		t.Parallel()
		announceLifetimes(removed.idp, 2, 300)
		removed.idp.Set(func(k *fakeas.Knobs) { k.RefreshIDToken.Claims.Omit = []string{"groups"} })
		b := w.browser()
		removed.login(t, b, "u")
		eventually(t, "end of the access", func() bool { return removed.get(t, b, "/x").Status == http.StatusForbidden })
	})
}
