package handler

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

func TestLoginLeadsToTheWantedPage(t *testing.T) {
	userInfo := func(s *setup) { s.handler.UserInfo = true }
	for name, options := range map[string][]func(*setup){
		"OpenID":                   {},
		"OpenID with UserInfo":     {userInfo},
		"OAuth 2.0":                {plainOAuth},
		"OAuth 2.0 with UserInfo":  {plainOAuth, userInfo},
		"loopback over plain http": {func(s *setup) { s.origin = loopback }},
		"SameSite=None":            {func(s *setup) { s.handler.Cookie = Cookie{SameSite: "none", Partitioned: true} }},
		"cookie with a domain":     {func(s *setup) { s.handler.Cookie = Cookie{Domain: "app.test"} }},
	} {
		t.Run(name, func(t *testing.T) {
			var user string
			g := newRig(t, append(options, func(s *setup) {
				s.handler.SetUser = func(_ *http.Request, u *User) {
					if u != nil {
						user = u.Subject
					}
				}
			})...)
			g.as.SetUser(fakeas.User{Name: "alice", Subject: "sub-of-alice"})
			b := g.browser()
			const wanted = "/deep/page?b=2&a=%20x;y&a="
			b.mustReach(wanted)
			if len(b.hops) != 4 {
				t.Errorf("the way was %q, want page, server, callback and page", b.hops)
			}
			token := strings.TrimPrefix(g.app.last().Get("Authorization"), "Bearer ")
			if _, ok := g.as.ValidAccessToken(token); !ok {
				t.Errorf("the app got %q, want a valid token", token)
			}
			if want := "sub-of-alice"; user != want && (g.handler.UserInfo || g.handler.Client.OpenID()) {
				t.Errorf("the user is %q, want %q", user, want)
			}
			if cookies := g.app.last()["Cookie"]; cookies != nil {
				t.Errorf("got cookies %q at the app, want none", cookies)
			}
			b.mustReach("/again")
			if len(b.hops) != 1 || g.as.codesRedeemed() != 1 {
				t.Errorf("second page: got hops %q and %d logins, want one and 1", b.hops, g.as.codesRedeemed())
			}
		})
	}
}

func TestLoginSecretsAreFreshAndBound(t *testing.T) {
	g := newRig(t)
	seen := map[string]string{}
	for range 50 {
		b := g.browser()
		at := b.start("/")
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		for name, want := range map[string]string{
			"response_type": "code", "code_challenge_method": "S256", "client_id": "app",
			"redirect_uri": appOrigin + "/oauth2/callback", "scope": "openid",
		} {
			if got := q[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			value := q.Get(name)
			if len(value) < 22 {
				t.Errorf("got %s %q, want a longer one", name, value)
			}
			if other, dup := seen[value]; dup {
				t.Errorf("got %s equal to the %s of another login, want a new one", name, other)
			}
			seen[value] = name
		}
		b.wantAppAt(b.open(b.approve(at)), "/")
		log := g.as.Log(fakeas.EndpointToken)
		verifier := log[len(log)-1].Form.Get("code_verifier")
		sum := sha256.Sum256([]byte(verifier))
		if len(verifier) < 43 || base64.RawURLEncoding.EncodeToString(sum[:]) != q.Get("code_challenge") {
			t.Errorf("got a verifier of %d characters that does not fit the challenge", len(verifier))
		}
		value := b.jar.get(sessionCookie).Value
		if _, dup := seen[value]; dup {
			t.Error("got one cookie for two sessions, want two")
		}
		seen[value] = "session"
	}
}

// TestLoginCookiesAreSealed: the browser cannot read their content.
func TestLoginCookiesAreSealed(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	at := b.start("/secret-page")
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"state": u.Query().Get("state"), "cookie": b.jar.logins()[0].Value} {
		raw, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		for _, readable := range []string{"secret-page", u.Query().Get("nonce"), `"r"`} {
			if strings.Contains(string(raw), readable) || strings.Contains(value, readable) {
				t.Errorf("got in the %s the text %q, want it sealed", name, readable)
			}
		}
	}
}

func TestNewLoginReplacesTheSession(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	old := b.jar.get(sessionCookie).Value
	b.wantAppAt(b.open("/oauth2/login?return_to=/here&prompt=select_account"), "/here")
	if now := b.jar.get(sessionCookie).Value; now == old {
		t.Error("got the former cookie, want a new one")
	}
	if a := g.get("/", append(script, "Cookie: "+sessionCookie+"="+old)...); a.status != http.StatusUnauthorized || a.relayed != 0 {
		t.Errorf("old cookie: got status %d, want 401", a.status)
	}
}

// TestBeginningALoginEndsNothing: any site can send a browser to the login
// endpoint.
func TestBeginningALoginEndsNothing(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	cookie := b.jar.get(sessionCookie)
	b.start("/oauth2/login?prompt=login")
	if b.jar.get(sessionCookie) != cookie {
		t.Error("got a changed session cookie, want the same")
	}
	b.mustReach("/")
	if len(b.hops) != 1 {
		t.Errorf("got hops %q, want the session kept", b.hops)
	}
}

// TestLinkOfAnotherSiteReplacesNoSession: the server may log in without a prompt,
// and the running requests of the former session would end.
func TestLinkOfAnotherSiteReplacesNoSession(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	cookie := b.jar.get(sessionCookie).Value
	b.wantAppAt(b.follow("/oauth2/login?return_to=/here&prompt=select_account"), "/here")
	if b.jar.get(sessionCookie).Value != cookie {
		t.Error("got another session after a link of another site, want the same")
	}
	b.wantAppAt(g.browser().follow("/oauth2/login?return_to=/here"), "/here")
}

func TestLoginEndpointChecksItsParameters(t *testing.T) {
	g := newRig(t)
	for _, tt := range []struct {
		query  string
		status int
		want   map[string]string // in the authorization request
	}{
		{"", 302, map[string]string{"prompt": "", "login_hint": ""}},
		{"?prompt=select_account&login_hint=bob%26x%3d1", 302, map[string]string{"prompt": "select_account", "login_hint": "bob&x=1"}},
		{"?prompt=create", 400, nil},
		{"?prompt=login&prompt=none", 400, nil},
		{"?return_to=/a&return_to=/b", 400, nil},
		{"?login_hint=" + strings.Repeat("x", 257), 400, nil},
		{"?iss=https://evil.test", 400, nil},
		{"?iss=" + url.QueryEscape(g.as.URL), 302, nil},
		{"?scope=admin&redirect_uri=https://evil.test&target_link_uri=//evil.test&client_id=x&acr_values=0&request=x", 302,
			map[string]string{"scope": "openid", "redirect_uri": appOrigin + "/oauth2/callback", "client_id": "app", "target_link_uri": "", "acr_values": "", "request": ""}},
		{"?return_to=%zz", 400, nil},
	} {
		a := g.get("/oauth2/login"+tt.query, append(navigation, "Sec-Fetch-Site: cross-site")...)
		if a.status != tt.status {
			t.Errorf("%s: status %d, want %d", tt.query, a.status, tt.status)
		}
		u, err := url.Parse(a.location())
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range tt.want {
			if got := u.Query().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", tt.query, name, got, want)
			}
		}
		if strings.Contains(a.body+a.location(), "evil.test") {
			t.Errorf("%s: got evil.test in the answer, want no trace of it", tt.query)
		}
	}
}

// TestStrictCookieIsSentAfterTheLogin: a browser does not send it on a redirect
// from another site, so a page navigates instead.
func TestStrictCookieIsSentAfterTheLogin(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Cookie = Cookie{SameSite: "strict"} })
	for _, wanted := range []string{"/", "/page?a=1&b=%22%3C&c=;d"} {
		b := g.browser()
		b.wantAppAt(b.open(wanted), wanted)
		if len(b.hops) != 4 || g.as.codesRedeemed() == 0 {
			t.Errorf("got hops %q, want four", b.hops)
		}
	}
}

// TestStrictCookiePageKeepsTheURL byte for byte.
func TestStrictCookiePageKeepsTheURL(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Cookie = Cookie{SameSite: "strict"} })
	b := g.browser()
	const wanted = "/Go_(game)?q='x'"
	b.wantAppAt(b.follow(wanted), wanted)
}

func TestInsecureOriginIsRefused(t *testing.T) {
	for _, origin := range []string{"http://app.test", "http://10.0.0.1", "http://localhost.evil.test", "http://127.0.0.1.nip.test"} {
		g := newRig(t, func(s *setup) { s.origin = origin })
		for _, path := range []string{"/", "/oauth2/login"} {
			a := g.get(path, navigation...)
			if a.status != 500 || !strings.Contains(a.body, "base_url") || !strings.Contains(a.body, "trusted_proxies") || a.header["Set-Cookie"] != nil {
				t.Errorf("%s%s: got status %d, want 500: %s", origin, path, a.status, a.body)
			}
		}
		if len(g.log.lines("insecure_origin")) != 1 {
			t.Errorf("%s: got log %s, want the cause", origin, g.log.text())
		}
	}
}

func TestMissingRefreshTokenIsLoggedOnce(t *testing.T) {
	g := newRig(t)
	g.as.Set(func(k *fakeas.Knobs) { k.RefreshTokens = fakeas.RefreshNone })
	g.loggedIn()
	g.loggedIn()
	if lines := g.log.lines("issued no refresh token"); len(lines) != 1 || !strings.Contains(lines[0], "offline_access") {
		t.Errorf("got log lines %q, want one", lines)
	}
}

func TestSessionHasTheClaimsOfTheUser(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.UserInfo = true })
	g.as.Set(func(k *fakeas.Knobs) { k.UserInfo = fakeas.Edit{Set: map[string]any{"team": "blue"}} })
	b := g.loggedIn()
	var info struct {
		User   string
		Claims map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(b.fetch("GET", "/oauth2/session").body), &info); err != nil {
		t.Fatal(err)
	}
	if info.User != "alice" || string(info.Claims["team"]) != `"blue"` || string(info.Claims["email"]) != `"alice@example.test"` {
		t.Errorf("got session %+v, want the user's claims", info)
	}
	for _, name := range protocolClaims {
		if _, ok := info.Claims[name]; ok {
			t.Errorf("got claim %s in the session, want it dropped", name)
		}
	}
}

func TestLoginWithoutAWholeIdentityIsRefused(t *testing.T) {
	for name, knob := range map[string]func(*fakeas.Knobs){
		"no ID token":          func(k *fakeas.Knobs) { k.LoginAnswer = fakeas.Edit{Omit: []string{"id_token"}} },
		"other nonce":          func(k *fakeas.Knobs) { k.LoginIDToken.Defect = fakeas.DefectNonce },
		"unsigned":             func(k *fakeas.Knobs) { k.LoginIDToken.Defect = fakeas.DefectNone },
		"UserInfo of another":  func(k *fakeas.Knobs) { k.UserInfo = fakeas.Edit{Set: map[string]any{"sub": "mallory"}} },
		"UserInfo without sub": func(k *fakeas.Knobs) { k.UserInfo = fakeas.Edit{Omit: []string{"sub"}} },
		"endless claims": func(k *fakeas.Knobs) {
			k.UserInfo = fakeas.Edit{Set: map[string]any{"x": strings.Repeat("x", maxClaims)}}
		},
		"mac token":    func(k *fakeas.Knobs) { k.LoginAnswer = fakeas.Edit{Set: map[string]any{"token_type": "mac"}} },
		"split header": func(k *fakeas.Knobs) { k.LoginAnswer = fakeas.Edit{Set: map[string]any{"access_token": "a\r\nX: y"}} },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.UserInfo = true })
			g.as.Set(knob)
			b := g.browser()
			a := b.open("/wanted")
			if a.status != http.StatusBadGateway || !strings.Contains(a.body, "login_failed") || b.jar.get(sessionCookie) != nil || g.app.count() != 0 {
				t.Errorf("got status %d, want 502: %s", a.status, a.body)
			}
			if n := g.as.codesRedeemed(); n != 1 {
				t.Errorf("got %d redeemed codes, want 1", n)
			}
			g.as.Set(func(k *fakeas.Knobs) { *k = fakeas.DefaultKnobs(); k.SigningAlg = "ES256" })
			b.mustReach("/wanted")
		})
	}
}
