package fakeas

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoginIssuesUsableTokens(t *testing.T) {
	g := newSocketRig(t)
	meta := g.get("/.well-known/openid-configuration")
	if meta.text("issuer") != g.as.URL || meta.text("token_endpoint") != g.as.URL+"/token" {
		t.Errorf("metadata: got %s", meta.body)
	}
	back := g.authorize("login_hint", "bob")
	if back.Get("state") != "st&te" || back.Has("iss") {
		t.Errorf("callback: got %v, want the state and no iss", back)
	}
	r := g.redeem(back.Get("code"))
	for name, want := range map[string]string{
		"access_token": `^AT_[0-9a-f]{64}$`, "refresh_token": `^RT_[0-9a-f]{64}$`, "token_type": "^Bearer$", "scope": "^openid offline_access$",
	} {
		if !regexp.MustCompile(want).MatchString(r.text(name)) {
			t.Errorf("got %s %q, want %s", name, r.text(name), want)
		}
	}
	if r.json["expires_in"] != 300.0 {
		t.Errorf("got expires_in %v, want 300", r.json["expires_in"])
	}
	if user, ok := g.as.ValidAccessToken(r.text("access_token")); !ok || user != "bob" {
		t.Errorf("ValidAccessToken: got %q, %t, want bob, true", user, ok)
	}
	info := g.bearer("/userinfo", r.text("access_token"))
	if info.text("sub") != "bob" || info.text("email") != "bob@example.test" {
		t.Errorf("userinfo: got %s, want bob's claims", info.body)
	}
	if r := g.bearer("/userinfo", "AT_nonsense"); r.status != http.StatusUnauthorized {
		t.Errorf("userinfo with an unknown token: got status %d, want 401", r.status)
	}
	secrets := g.as.Secrets()
	for _, s := range []string{back.Get("code"), r.text("access_token"), r.text("refresh_token"), r.text("id_token"), verifier} {
		if !slices.Contains(secrets, s) {
			t.Errorf("Secrets lacks %.12s…", s)
		}
	}
}

func TestAuthorizationEndpointRefusesInvalidRequests(t *testing.T) {
	g := newRig(t)
	g.as.SetUser(User{Name: "mallory", Disabled: true})
	tests := []struct{ name, param, value, want string }{
		{"implicit flow", "response_type", "token", "unsupported_response_type"},
		{"no PKCE", "code_challenge", "-", "invalid_request"},
		{"plain PKCE", "code_challenge_method", "plain", "invalid_request"},
		{"fragment", "response_mode", "fragment", "invalid_request"},
		{"disabled user", "login_hint", "mallory", "access_denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			back := g.authorize(tt.param, tt.value)
			if back.Get("error") != tt.want || back.Has("code") || back.Get("state") != "st&te" {
				t.Errorf("got callback %v, want error %s", back, tt.want)
			}
		})
	}
	for _, p := range [][2]string{{"client_id", "unknown"}, {"redirect_uri", callbackURI + "/"}, {"redirect_uri", "-"}} {
		r := g.get("/authorize?" + g.request(p[0], p[1]).Encode())
		if r.status != http.StatusBadRequest || r.header.Get("Location") != "" {
			t.Errorf("%v: got status %d and location %q, want 400 and none", p, r.status, r.header.Get("Location"))
		}
	}
	if r := g.get("/authorize?" + g.request().Encode() + "&scope=x"); !strings.Contains(r.header.Get("Location"), "error=invalid_request") {
		t.Errorf("repeated parameter: got location %q, want error invalid_request", r.header.Get("Location"))
	}
}

func TestKnobsChangeTheCallback(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.IssParameter, k.PromptNone = true, "login_required" })
	if back := g.authorize(); back.Get("iss") != "https://as.test" || !back.Has("code") {
		t.Errorf("got callback %v, want a code and iss", back)
	}
	if back := g.authorize("prompt", "none"); back.Get("error") != "login_required" || back.Get("iss") == "" {
		t.Errorf("prompt=none: got callback %v, want login_required", back)
	}
	g.as.Fail(OAuthError("temporarily_unavailable").At(EndpointAuthorize))
	if back := g.authorize(); back.Get("error") != "temporarily_unavailable" || back.Has("code") {
		t.Errorf("OAuthError: got callback %v, want temporarily_unavailable", back)
	}
	g.as.Set(func(k *Knobs) {
		k.Callback = Edit{Set: map[string]any{"iss": "https://evil.test"}, Omit: []string{"state"}}
	})
	if back := g.authorize(); back.Get("iss") != "https://evil.test" || back.Has("state") {
		t.Errorf("edited callback: got %v, want another iss and no state", back)
	}
	g.as.Set(func(k *Knobs) { k.FormPost = true })
	r := g.get("/authorize?" + g.request().Encode())
	if r.status != http.StatusOK || !strings.Contains(r.body, `method="post" action="`+callbackURI+`"`) || !strings.Contains(r.body, `name="code" value="CODE_`) {
		t.Errorf("form_post: got %d %s, want a form with a code", r.status, r.body)
	}
}

func TestCodeIsRedeemedOnceByItsRequest(t *testing.T) {
	good := func(code string) url.Values {
		return url.Values{"grant_type": {GrantCode}, "code": {code}, "redirect_uri": {callbackURI}, "code_verifier": {verifier}}
	}
	tests := []struct {
		name   string
		edit   func(url.Values)
		status int
		want   string
	}{
		{"wrong verifier", func(v url.Values) { v.Set("code_verifier", strings.Repeat("x", 43)) }, 400, "invalid_grant"},
		{"no verifier", func(v url.Values) { v.Del("code_verifier") }, 400, "invalid_grant"},
		{"other redirect_uri", func(v url.Values) { v.Set("redirect_uri", callbackURI+"?x") }, 400, "invalid_grant"},
		{"unknown code", func(v url.Values) { v.Set("code", "CODE_1") }, 400, "invalid_grant"},
		{"repeated parameter", func(v url.Values) { v.Add("code", "x") }, 400, "invalid_request"},
		{"unknown grant", func(v url.Values) { v.Set("grant_type", "password") }, 400, "unsupported_grant_type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			form := good(g.authorize("scope", "api").Get("code"))
			tt.edit(form)
			g.wantError(g.post("/token", form, g.auth), tt.status, tt.want)
			if n := g.as.Stats().Refused[tt.want]; n != 1 {
				t.Errorf("got Refused[%s] = %d, want 1", tt.want, n)
			}
		})
	}
	t.Run("second redemption", func(t *testing.T) {
		g := newRig(t)
		code := g.authorize("scope", "api").Get("code")
		r := g.redeem(code)
		g.wantError(g.redeem(code), 400, "invalid_grant")
		if g.valid(r.text("access_token")) || g.as.Stats().CodeReuses != 1 {
			t.Error("the second redemption did not revoke the access token, or was not counted")
		}
	})
	t.Run("expired code", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newRig(t)
			code := g.authorize().Get("code")
			time.Sleep(codeLifetime)
			g.wantError(g.redeem(code), 400, "invalid_grant")
		})
	})
}

func TestClientMustUseItsAuthenticationMethod(t *testing.T) {
	odd := Client{ID: "odd:id+1 ü", Secret: `p+s %41:&=/?~"ü`}
	post := func(id, secret string) func(url.Values, *http.Request) {
		return func(v url.Values, _ *http.Request) { v.Set("client_id", id); v.Set("client_secret", secret) }
	}
	basic := func(id, secret string) func(url.Values, *http.Request) {
		return func(_ url.Values, r *http.Request) { r.SetBasicAuth(id, secret) }
	}
	encoded := basic(url.QueryEscape(odd.ID), url.QueryEscape(odd.Secret))
	raw := Client{ID: "app", Secret: odd.Secret, RawBasic: true}
	tests := []struct {
		name   string
		client Client
		auth   func(url.Values, *http.Request)
		want   int
	}{
		{"basic", odd, encoded, 200},
		{"basic not encoded", odd, basic(odd.ID, odd.Secret), 401},
		{"basic client posts", odd, post(odd.ID, odd.Secret), 401},
		{"wrong secret", odd, basic(url.QueryEscape(odd.ID), "x"), 401},
		{"no secret", odd, post(odd.ID, ""), 401},
		{"raw basic", raw, basic(raw.ID, raw.Secret), 200},
		{"raw basic encoded", raw, basic(raw.ID, url.QueryEscape(raw.Secret)), 401},
		{"post", Client{ID: "p", Secret: odd.Secret, AuthMethod: AuthPost}, post("p", odd.Secret), 200},
		{"post client sends basic", Client{ID: "p", Secret: "s", AuthMethod: AuthPost}, basic("p", "s"), 401},
		{"both", odd, func(v url.Values, r *http.Request) { post(odd.ID, odd.Secret)(v, r); encoded(v, r) }, 400},
		{"public", Client{ID: "pub"}, func(v url.Values, _ *http.Request) { v.Set("client_id", "pub") }, 200},
		{"public sends a secret", Client{ID: "pub"}, post("pub", "x"), 401},
		{"confidential sends none", odd, func(v url.Values, _ *http.Request) { v.Set("client_id", odd.ID) }, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			g.client = tt.client
			g.client.RedirectURIs = []string{callbackURI}
			g.as.AddClient(g.client)
			form := url.Values{
				"grant_type": {GrantCode}, "code": {g.authorize().Get("code")}, "redirect_uri": {callbackURI}, "code_verifier": {verifier},
			}
			body := url.Values{}
			probe, _ := http.NewRequest(http.MethodPost, "/", nil)
			tt.auth(body, probe)
			for name := range body {
				form.Set(name, body.Get(name))
			}
			r := g.post("/token", form, func(req *http.Request) { tt.auth(url.Values{}, req) })
			if r.status != tt.want {
				t.Errorf("got status %d: %s, want %d", r.status, r.body, tt.want)
			}
		})
	}
}

func TestConsumeOnFailedAuthSpendsTheGrant(t *testing.T) {
	for _, consume := range []bool{false, true} {
		g := newRig(t, func(k *Knobs) { k.ConsumeOnFailedAuth = consume })
		code := g.authorize("scope", "api").Get("code")
		g.wantError(g.post("/token", url.Values{"grant_type": {GrantCode}, "code": {code}}, nil), 401, "invalid_client")
		if r := g.redeem(code); (r.status == 200) == consume {
			t.Errorf("consume %t: redeeming the code: got status %d, want success: %t", consume, r.status, !consume)
		}
		token := g.login("scope", "api").text("refresh_token")
		g.wantError(g.post("/token", url.Values{"grant_type": {GrantRefresh}, "refresh_token": {token}}, nil), 401, "invalid_client")
		if r := g.refresh(token); (r.status == 200) == consume {
			t.Errorf("consume %t: refreshing: got status %d, want success: %t", consume, r.status, !consume)
		}
	}
}

func TestDiscoveryServesTheSelectedMetadata(t *testing.T) {
	const openID, rfc8414 = wellKnownOpenID, wellKnownOAuth
	tests := []struct {
		mode Discovery
		want map[string]int
	}{
		{DiscoveryOpenID, map[string]int{openID: 200, rfc8414: 404}},
		{DiscoveryOAuth, map[string]int{openID: 404, rfc8414: 200}},
		{DiscoveryBoth, map[string]int{openID: 200, rfc8414: 200}},
		{DiscoveryNone, map[string]int{openID: 404, rfc8414: 404}},
	}
	for _, tt := range tests {
		g := newRig(t, func(k *Knobs) { k.Discovery = tt.mode })
		for path, want := range tt.want {
			if r := g.get(path); r.status != want {
				t.Errorf("%s: GET %s: got status %d, want %d", tt.mode, path, r.status, want)
			}
		}
	}
	g := newRig(t, func(k *Knobs) {
		k.Issuer = "https://other.test/{tenantid}"
		k.Metadata = Edit{Set: map[string]any{"token_endpoint": "http://as.test/token"}, Omit: []string{"jwks_uri"}}
	})
	m := g.get(openID)
	if _, ok := m.json["jwks_uri"]; ok || m.text("issuer") != "https://other.test/{tenantid}" || m.text("token_endpoint") != "http://as.test/token" {
		t.Errorf("edited metadata: got %s", m.body)
	}
	g.as.URL = "https://as.test/tenant"
	g.as.Set(func(k *Knobs) { *k = DefaultKnobs(); k.Discovery = DiscoveryBoth })
	for path, want := range map[string]int{openID: 200, "/../.well-known/oauth-authorization-server/tenant": 404, "/authorize": 400} {
		if r := g.get(path); r.status != want {
			t.Errorf("issuer with a path: GET %s: got status %d, want %d", path, r.status, want)
		}
	}
	g.as.URL = "https://as.test"
	if r := g.get(rfc8414); r.status != 200 {
		t.Errorf("issuer without a path: GET %s: got status %d, want 200", rfc8414, r.status)
	}
}

func TestRevocationNeedsAuthenticationAndEndsTheFamily(t *testing.T) {
	g := newRig(t)
	r := g.login("scope", "api")
	if out := g.post("/revoke", url.Values{"token": {"unknown"}}, g.auth); out.status != 200 {
		t.Errorf("revoking an unknown token: got status %d, want 200", out.status)
	}
	g.wantError(g.post("/revoke", url.Values{"token": {r.text("refresh_token")}}, nil), 401, "invalid_client")
	if !g.valid(r.text("access_token")) {
		t.Error("an unauthenticated request revoked the token")
	}
	if out := g.post("/revoke", url.Values{"token": {r.text("refresh_token")}}, g.auth); out.status != 200 {
		t.Errorf("revoking the refresh token: got status %d, want 200", out.status)
	}
	if g.valid(r.text("access_token")) {
		t.Error("the access token is valid after the revocation of its refresh token")
	}
	g.wantError(g.refresh(r.text("refresh_token")), 400, "invalid_grant")
	other := g.login("scope", "api")
	g.as.Revoke(other.text("access_token"))
	if g.valid(other.text("access_token")) {
		t.Error("the access token is valid after its revocation")
	}
	g.wantRefreshed(other.text("refresh_token"))
}
