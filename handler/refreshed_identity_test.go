package handler

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// expiredLogin is a login whose access token has expired, so that the next
// request refreshes.
func (g *rig) expiredLogin() (cookie string) {
	g.t.Helper()
	g.browser().open("/") // which may be forbidden
	tokens := keeper.Tokens{
		AccessToken: g.as.newest(fakeas.KindAccess), RefreshToken: g.as.newest(fakeas.KindRefresh), IDToken: g.as.newest(fakeas.KindID),
		Obtained: time.Now().Add(-time.Hour), Expires: time.Now().Add(-time.Minute),
	}
	var nonce string
	_ = json.Unmarshal(decodePayload(tokens.IDToken)["nonce"], &nonce)
	who, err := g.handler.identify(g.t.Context(), &oauth.TokenResponse{AccessToken: tokens.AccessToken, IDToken: tokens.IDToken}, oauth.IDTokenExpectation{Nonce: nonce, AccessToken: tokens.AccessToken})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.sessionOf(who, tokens)
}

// claimsOf returns the user and the claims at the session endpoint.
func (g *rig) claimsOf(cookie string) (user string, claims map[string]any) {
	g.t.Helper()
	var info struct {
		User   string
		Claims map[string]any
	}
	a := g.get("/oauth2/session", with(cookie, script)...)
	if err := json.Unmarshal([]byte(a.body), &info); err != nil {
		g.t.Fatalf("got status %d, error %v, want a session", a.status, err)
	}
	return info.User, info.Claims
}

// refreshed sends a request with an expired token, and fails the test unless
// the app gets a new one.
func (g *rig) refreshed(cookie string) {
	g.t.Helper()
	before := g.as.refreshes()
	a := g.get("/", with(cookie, script)...)
	if a.status != http.StatusOK || a.relayed != 1 || g.as.refreshes() != before+1 {
		g.t.Fatalf("got status %d, want 200 after %d refreshes: %.200s", a.status, g.as.refreshes()-before, a.body)
	}
	if got := g.app.last().Get("Authorization"); got != "Bearer "+g.as.newest(fakeas.KindAccess) {
		g.t.Errorf("the app has not got the new token")
	}
}

func claim(name string, value any) fakeas.TokenEdit {
	return fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{name: value}}}
}

func withoutClaim(names ...string) fakeas.TokenEdit {
	return fakeas.TokenEdit{Claims: fakeas.Edit{Omit: names}}
}

func defect(d fakeas.Defect) fakeas.TokenEdit { return fakeas.TokenEdit{Defect: d} }

// unverifiable returns ways to make a refreshed ID token unverifiable.
func unverifiable() map[string]func(as *authServer, k *fakeas.Knobs) {
	all := map[string]func(as *authServer, k *fakeas.Knobs){
		"90 seconds ahead": func(_ *authServer, k *fakeas.Knobs) { k.ClockOffset = 90 * time.Second },
		"an hour behind":   func(_ *authServer, k *fakeas.Knobs) { k.ClockOffset = -time.Hour },
		"encrypted": func(_ *authServer, k *fakeas.Knobs) {
			k.RefreshAnswer.Set = map[string]any{"id_token": "eyJh.b.c.d.e"}
		},
		"large":         func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = claim("x", strings.Repeat("x", 60<<10)) },
		"numeric sub":   func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = claim("sub", 7) },
		"null sub":      func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = claim("sub", nil) },
		"numeric nonce": func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = claim("nonce", 7) },
		"odd exp":       func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = claim("exp", "soon") },
		"odd aud":       func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = claim("aud", []any{"other", 7}) },
		"keys are down": func(as *authServer, _ *fakeas.Knobs) { as.RotateKey(); keysFail(as, fakeas.Unavailable()) },
		"keys are gone": func(as *authServer, _ *fakeas.Knobs) {
			as.RotateKey()
			keysFail(as, fakeas.Answer(404, "text/plain", ""))
		},
		"keys are empty": func(as *authServer, _ *fakeas.Knobs) {
			as.RotateKey()
			keysFail(as, fakeas.Answer(200, "application/json", `{"keys":[]}`))
		},
		"keys are HTML": func(as *authServer, _ *fakeas.Knobs) {
			as.RotateKey()
			keysFail(as, fakeas.Answer(200, "text/html", "<html>"))
		},
		"keys are late": func(as *authServer, _ *fakeas.Knobs) { as.RotateKey(); keysFail(as, fakeas.Slow(time.Minute)) },
		"other sub, unsigned": func(_ *authServer, k *fakeas.Knobs) {
			k.RefreshSubject, k.RefreshIDToken = "mallory", defect(fakeas.DefectNone)
		},
		"other sub, other key": func(_ *authServer, k *fakeas.Knobs) {
			k.RefreshSubject, k.RefreshIDToken = "mallory", defect(fakeas.DefectKey)
		},
		"other algorithm": func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken.Header.Set = map[string]any{"alg": "ES256K"} },
	}
	for _, d := range []fakeas.Defect{
		fakeas.DefectNoIssuer, fakeas.DefectNoAudience, fakeas.DefectAudienceOther, fakeas.DefectNoSubject, fakeas.DefectEmptySubject,
		fakeas.DefectExpired, fakeas.DefectExpiredFlipped, fakeas.DefectIssuedLater, fakeas.DefectNotBefore, fakeas.DefectNoExpiry, fakeas.DefectNoIssuedAt,
		fakeas.DefectFlipped, fakeas.DefectNoSignature, fakeas.DefectHMACSecret, fakeas.DefectHMACPEM, fakeas.DefectKeyType, fakeas.DefectKeyID,
		fakeas.DefectEmbeddedKey, fakeas.DefectAtHash, fakeas.DefectTypeLogout, fakeas.DefectTypeAccess, fakeas.DefectCritical, fakeas.DefectAuthTime,
		fakeas.DefectNotJWT,
	} {
		all[string(d)] = func(_ *authServer, k *fakeas.Knobs) { k.RefreshIDToken = defect(d) }
	}
	return all
}

// TestOddOptionalClaimsOfARefreshCountAsMissing: the session gets the new claims. It
// keeps the sid, and the time of authentication.
func TestOddOptionalClaimsOfARefreshCountAsMissing(t *testing.T) {
	for name, value := range map[string]any{"sid": 7, "auth_time": "now", "azp": 7, "nbf": "now", "at_hash": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			cookie := g.expiredLogin()
			sid := g.sid()
			_, before := g.claimsOf(cookie)
			g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "changed@example.test"}})
			g.as.Set(func(k *fakeas.Knobs) { k.RefreshIDToken = claim(name, value) })
			g.refreshed(cookie)
			_, after := g.claimsOf(cookie)
			if after["email"] != "changed@example.test" || after["auth_time"] != before["auth_time"] {
				t.Errorf("got claims %v, want the new e-mail and auth_time %v", after, before["auth_time"])
			}
			if lines := g.log.lines("could not be verified"); len(lines) != 0 {
				t.Errorf("the log says %q, want nothing", lines)
			}
			wantLogout(t, name, g.sendLogout(fakeas.Logout{SessionID: sid}), http.StatusOK)
			gone(t, g, cookie)
		})
	}
}

func keysFail(as *authServer, f fakeas.Fault) { as.Fail(f.At(fakeas.EndpointJWKS).Repeat(-1)) }

// TestUnverifiableIDTokenEndsNothing: the new access token is used. The session
// keeps its user, its claims, and the sid for a back-channel logout.
func TestUnverifiableIDTokenEndsNothing(t *testing.T) {
	for name, spoil := range unverifiable() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			cookies := []string{g.expiredLogin(), g.expiredLogin()}
			sid := g.sid()
			user, claims := g.claimsOf(cookies[1])
			g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "changed@example.test"}})
			g.as.Set(func(k *fakeas.Knobs) { *k = fakeas.DefaultKnobs(); k.SigningAlg = "ES256" })
			// Outside of Set: some faults take the server's lock.
			k := g.as.Knobs()
			spoil(g.as, &k)
			g.as.Set(func(now *fakeas.Knobs) { *now = k })
			for _, cookie := range cookies {
				g.refreshed(cookie)
			}
			newUser, newClaims := g.claimsOf(cookies[1])
			if diff := cmp.Diff(claims, newClaims); diff != "" || user != newUser {
				t.Errorf("got user %s after the refresh, want the same; claims (-want +got):\n%s", newUser, diff)
			}
			if lines := g.log.lines("could not be verified"); len(lines) != 1 || !strings.Contains(lines[0], `"level":"warn"`) || !strings.Contains(lines[0], `"error":"verifying refreshed ID token: `) {
				t.Errorf("the log says %q, want one warning with the cause", lines)
			}
			if n := len(g.as.Log(fakeas.EndpointRevoke)); n != 0 {
				t.Errorf("got %d revoked tokens, want 0", n)
			}
			g.as.ClearFaults()
			g.as.Set(func(k *fakeas.Knobs) { k.ClockOffset = 0 })
			if a := g.sendLogout(fakeas.Logout{SessionID: sid}); a.status == http.StatusOK {
				gone(t, g, cookies[1])
			} else if !strings.HasPrefix(name, "keys are") { // there the key of the logout token is new, too
				t.Errorf("logout: got status %d, want 303", a.status)
			}
		})
	}
}

// TestOtherLoginEndsTheSession: an ID token with a valid signature that belongs to
// another login ends the session, whatever its other defects. The app never sees
// the access token of that answer, and the new tokens are revoked.
func TestOtherLoginEndsTheSession(t *testing.T) {
	other := func(edit fakeas.TokenEdit) func(*fakeas.Knobs) {
		return func(k *fakeas.Knobs) { k.RefreshSubject, k.RefreshIDToken = "mallory", edit }
	}
	for name, knob := range map[string]func(*fakeas.Knobs){
		"sub":              other(fakeas.TokenEdit{}),
		"iss":              func(k *fakeas.Knobs) { k.RefreshIDToken = defect(fakeas.DefectIssuer) },
		"iss with a slash": func(k *fakeas.Knobs) { k.RefreshIDToken = defect(fakeas.DefectIssuerSlash) },
		"aud":              func(k *fakeas.Knobs) { k.RefreshIDToken = defect(fakeas.DefectAudience) },
		"azp":              func(k *fakeas.Knobs) { k.RefreshIDToken = defect(fakeas.DefectAZP) },
		"nonce":            func(k *fakeas.Knobs) { k.RefreshIDToken = defect(fakeas.DefectNonce) },
		"nonce of another": func(k *fakeas.Knobs) { k.RefreshIDToken = defect(fakeas.DefectOtherNonce) },
		"sub, expired":     other(defect(fakeas.DefectExpired)),
		"sub, later":       other(defect(fakeas.DefectIssuedLater)),
		"sub, no iat":      other(defect(fakeas.DefectNoIssuedAt)),
		"sub, at_hash":     other(defect(fakeas.DefectAtHash)),
		"sub, no iss":      other(defect(fakeas.DefectNoIssuer)),
		"sub, older":       other(defect(fakeas.DefectAuthTime)),
		"no rotation": func(k *fakeas.Knobs) {
			k.RefreshSubject, k.Rotation = "mallory", fakeas.RotateNever
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			cookie := g.expiredLogin()
			g.as.Set(knob)
			if a := g.get("/", with(cookie, script)...); a.status != http.StatusUnauthorized || a.relayed != 0 {
				t.Errorf("a script: got status %d, want 401", a.status)
			}
			a := g.get("/", with(cookie, navigation)...)
			if a.status != http.StatusFound || !strings.HasPrefix(a.location(), g.as.URL+"/authorize?") {
				t.Errorf("a navigation: got status %d, want 302, Location %q", a.status, a.location())
			}
			select {
			case <-g.as.revoked:
			case <-time.After(30 * time.Second):
				t.Fatal("got no revocation, want one")
			}
			if _, valid := g.as.ValidAccessToken(g.as.newest(fakeas.KindAccess)); valid {
				t.Error("got a valid new access token, want it revoked")
			}
			if lines := g.log.lines(string(keeper.EndIdentityChanged)); len(lines) != 1 {
				t.Errorf("got log lines %q, want one", lines)
			}
			if lines := g.log.lines("tokens of another login"); len(lines) != 1 || !strings.Contains(lines[0], `"level":"warn"`) {
				t.Errorf("the log says %q, want one warning with the cause", lines)
			}
			if lines := g.log.lines("configuration"); len(lines) != 0 {
				t.Errorf("the log says %q, but no configuration can help", lines)
			}
		})
	}
}

// TestForgedLogoutTokensEndNoSession: anonymous requests arrive at the logout
// endpoint just before the server changes its key, while many sessions need a
// refresh.
func TestForgedLogoutTokensEndNoSession(t *testing.T) {
	for _, keysDown := range []bool{false, true} {
		t.Run(fmt.Sprintf("keys down: %v", keysDown), func(t *testing.T) {
			g := newRig(t)
			cookies := make([]string, 20)
			for i := range cookies {
				cookies[i] = g.expiredLogin()
			}
			if keysDown {
				keysFail(g.as, fakeas.Unavailable())
			}
			for i := range 20 {
				edit := fakeas.TokenEdit{Header: fakeas.Edit{Set: map[string]any{"kid": fmt.Sprint("made up ", i)}}}
				form := url.Values{"logout_token": {g.logoutToken(fakeas.Logout{Subject: "nobody", Edit: edit})}}
				if a := g.backchannel(urlencoded, form.Encode()); a.status == http.StatusOK {
					t.Fatal("got a forged token accepted, want it refused")
				}
			}
			g.as.ClearFaults()
			g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "changed@example.test"}})
			g.as.RotateKey()
			var all sync.WaitGroup
			for _, cookie := range cookies {
				r := g.request("GET", "/", with(cookie, script)...)
				all.Go(func() {
					if w := g.ask(r, g.app.serve); w.Code != http.StatusOK {
						t.Errorf("got status %d, want 200: %s", w.Code, w.Body)
					}
				})
			}
			all.Wait()
			// Their ID tokens were verified with the new key.
			for _, cookie := range cookies {
				if _, claims := g.claimsOf(cookie); claims["email"] != "changed@example.test" {
					t.Errorf("got claims %v, want the former ones", claims)
				}
			}
			g.as.RotateKey()
			g.loggedIn()
		})
	}
}
