package handler

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// sentParams returns the parameters of an authorization URL.
func sentParams(t *testing.T, location string) url.Values {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

// TestLoginParametersAreHandedOn: those that a link may choose, and no others.
func TestLoginParametersAreHandedOn(t *testing.T) {
	configured := func(s *setup) {
		s.handler.LoginParams = []string{"kc_idp_hint", "domain_hint"}
		s.oauth.AuthorizeParams = []oauth.Param{{Name: "domain_hint", Value: "example.com"}, {Name: "prompt", Value: "consent"}}
	}
	own, other := "none", "cross-site"
	for _, tt := range []struct {
		name   string
		option func(*setup)
		site   string // Sec-Fetch-Site
		query  string
		status int
		want   map[string]string
	}{
		{"always", configured, other, "prompt=login&login_hint=a%26b&ui_locales=sv+de", 302, map[string]string{"prompt": "login", "login_hint": "a&b", "ui_locales": "sv de"}},
		{"configured ones", configured, other, "kc_idp_hint=google", 302, map[string]string{"kc_idp_hint": "google", "domain_hint": "example.com", "prompt": "consent"}},
		{"replaces the configured value", configured, own, "domain_hint=a.test&prompt=login", 302, map[string]string{"domain_hint": "a.test", "prompt": "login"}},
		{"of a page of the site", configured, own, "acr_values=gold+silver&max_age=300", 302, map[string]string{"acr_values": "gold silver", "max_age": "300"}},
		{"not of another site", configured, other, "acr_values=gold&max_age=0", 302, map[string]string{"acr_values": "", "max_age": ""}},
		{"not of a sibling", configured, "same-site", "acr_values=gold&max_age=0", 302, map[string]string{"acr_values": "", "max_age": ""}},
		{"of another site if configured", func(s *setup) { s.handler.LoginParams = []string{"acr_values", "max_age"} }, other, "acr_values=gold&max_age=0", 302,
			map[string]string{"acr_values": "gold", "max_age": "0"}},
		{"not configured", configured, own, "screen_hint=signup&kc_action=x&scope=admin&response_mode=fragment&claims=%7B%7D", 302,
			map[string]string{"screen_hint": "", "kc_action": "", "scope": "openid", "response_mode": "", "claims": ""}},
		{"weaker acr_values", func(s *setup) { s.oauth.AuthorizeParams = []oauth.Param{{Name: "acr_values", Value: "gold"}} }, own, "acr_values=bronze", 302,
			map[string]string{"acr_values": "gold"}},
		{"longer max_age", func(s *setup) { s.oauth.AuthorizeParams = []oauth.Param{{Name: "max_age", Value: "60"}} }, own, "max_age=3600", 302,
			map[string]string{"max_age": "60"}},
		{"shorter max_age", func(s *setup) { s.oauth.AuthorizeParams = []oauth.Param{{Name: "max_age", Value: "60"}} }, own, "max_age=5", 302,
			map[string]string{"max_age": "5"}},
		{"empty ones", configured, own, "kc_idp_hint=&max_age=&prompt=", 302, map[string]string{"kc_idp_hint": "", "max_age": "", "prompt": "consent"}},
		{"repeated", configured, own, "kc_idp_hint=a&kc_idp_hint=a", 400, nil},
		{"repeated, one empty", configured, own, "ui_locales=&ui_locales=sv", 400, nil},
		{"too long", configured, own, "kc_idp_hint=" + strings.Repeat("x", maxLoginParam+1), 400, nil},
		{"longest", configured, own, "kc_idp_hint=" + strings.Repeat("x", maxLoginParam), 302, nil},
		{"too long together", configured, own, "kc_idp_hint=" + strings.Repeat("x", 250) + "&domain_hint=" + strings.Repeat("x", 250) + "&login_hint=" + strings.Repeat("x", 250), 400, nil},
		{"line end", configured, own, "kc_idp_hint=a%0d%0ab", 400, nil},
		{"not UTF-8", configured, own, "login_hint=%ff", 400, nil},
		{"max_age of letters", configured, own, "max_age=x", 400, nil},
		{"negative max_age", configured, own, "max_age=-1", 400, nil},
		{"max_age with a sign", configured, own, "max_age=%2B1", 400, nil},
		{"endless max_age", configured, own, "max_age=99999999999", 400, nil},
		{"max_age without OpenID", plainOAuth, own, "max_age=60", 400, nil},
		{"iss without an issuer", plainOAuth, other, "iss=https%3A%2F%2Fidp.test", 400, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.option)
			r := g.request("GET", "/oauth2/login?"+tt.query, navigation...)
			r.Header.Set("Sec-Fetch-Site", tt.site)
			a := g.do(r)
			if a.status != tt.status || tt.status == 400 && (!strings.Contains(a.body, "bad_request") || a.header["Set-Cookie"] != nil) {
				t.Fatalf("got status %d: %s, want %d", a.status, a.body, tt.status)
			}
			q := sentParams(t, a.location())
			for name, want := range tt.want {
				if got := q[name]; len(got) > 1 || q.Get(name) != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestRestartedLoginKeepsItsParameters, except a prompt that the server could not keep
// to. It does so even if the attempt's cookie is gone.
func TestRestartedLoginKeepsItsParameters(t *testing.T) {
	const link = "/oauth2/login?return_to=/wanted&login_hint=bob&kc_idp_hint=google&ui_locales=sv&acr_values=gold&max_age=600&prompt="
	config := func(s *setup) { s.handler.LoginParams = []string{"kc_idp_hint"} }
	want := func(t *testing.T, q url.Values, prompt string) {
		t.Helper()
		for name, value := range map[string]string{"login_hint": "bob", "kc_idp_hint": "google", "ui_locales": "sv", "acr_values": "gold", "max_age": "600", "prompt": prompt} {
			if got := q.Get(name); got != value {
				t.Errorf("%s: got %q, want %q", name, got, value)
			}
		}
	}
	for _, tt := range []struct{ error, prompt, again string }{
		{"temporarily_unavailable", "select_account", "select_account"},
		{"server_error", "", ""},
		{"login_required", "none", ""},
		{"temporarily_unavailable", "none", ""},
	} {
		t.Run(tt.error+", "+tt.prompt, func(t *testing.T) {
			g := newRig(t, config)
			g.as.Fail(fakeas.OAuthError(tt.error).At(fakeas.EndpointAuthorize))
			b := g.browser()
			callback := b.approve(b.start(link + tt.prompt))
			a := b.send(g.request("GET", callback, navigation...), true)
			wantNewLogin(t, g, a)
			want(t, sentParams(t, a.location()), tt.again)
		})
	}
	t.Run("refused code", func(t *testing.T) {
		g := newRig(t, config)
		g.as.Fail(fakeas.OAuthError("invalid_grant"))
		b := g.browser()
		a := b.send(g.request("GET", b.approve(b.start(link+"login")), navigation...), true)
		wantNewLogin(t, g, a)
		want(t, sentParams(t, a.location()), "login")
	})
	t.Run("cookie gone", func(t *testing.T) {
		g := newRig(t, config)
		b := g.browser()
		callback := b.approve(b.start(link + "login"))
		a := g.get(callback, navigation...)
		wantNewLogin(t, g, a)
		want(t, sentParams(t, a.location()), "login")
	})
}

// TestLongestLoginStillFitsIntoACookie: the longest page and the longest parameters.
func TestLongestLoginStillFitsIntoACookie(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.LoginParams = []string{"kc_idp_hint"} })
	wanted := "/?" + strings.Repeat("x", maxReturnPath-2)
	q := url.Values{"return_to": {wanted}, "ui_locales": {strings.Repeat("b", maxLoginParam)}, "kc_idp_hint": {strings.Repeat("x", maxLoginParam)}}
	b := g.browser()
	b.wantAppAt(b.open("/oauth2/login?"+q.Encode()), wanted)
	log := g.as.Log(fakeas.EndpointAuthorize)
	if n := len(log[0].Query.Get("state")); n == 0 || n > 1200 {
		t.Errorf("got a state of %d bytes, want a short one", n)
	}
}

// TestMaxAgeOfALinkIsChecked in the ID token: a server that ignores it logs nobody in.
func TestMaxAgeOfALinkIsChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		edit fakeas.Edit
		ok   bool
	}{
		"just authenticated": {fakeas.Edit{Set: map[string]any{"auth_time": time.Now().Unix()}}, true},
		"too long ago":       {fakeas.Edit{Set: map[string]any{"auth_time": time.Now().Add(-time.Hour).Unix()}}, false},
		"no auth_time":       {fakeas.Edit{Omit: []string{"auth_time"}}, false},
		"odd auth_time":      {fakeas.Edit{Set: map[string]any{"auth_time": "now"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken.Claims = tt.edit })
			b := g.browser()
			a := b.open("/oauth2/login?return_to=/wanted&max_age=300")
			if tt.ok {
				b.wantAppAt(a, "/wanted")
				return
			}
			wantLoginLink(t, a, 502, "login_failed")
			if b.jar.get(sessionCookie) != nil {
				t.Error("got a session, want none")
			}
			b.mustReach("/wanted") // without the limit, the same server is good enough
		})
	}
}

// TestMaxAgeCountsFromTheBeginningOfTheLogin: the time that the user takes at the server
// after the authentication, such as for a consent, does not count.
func TestMaxAgeCountsFromTheBeginningOfTheLogin(t *testing.T) {
	for _, tt := range []struct {
		name, query   string
		option        func(*setup)
		begun         time.Duration // ago
		authenticated time.Duration // ago
		ok            bool
	}{
		{"slow consent", "max_age=0", func(*setup) {}, 5 * time.Minute, 4 * time.Minute, true},
		{"slow consent, configured", "", func(s *setup) { s.oauth.AuthorizeParams = []oauth.Param{{Name: "max_age", Value: "0"}} }, 5 * time.Minute, 4 * time.Minute, true},
		{"young enough at the beginning", "max_age=300", func(*setup) {}, 5 * time.Minute, 9 * time.Minute, true},
		{"before the login", "max_age=0", func(*setup) {}, 5 * time.Minute, 7 * time.Minute, false},
		{"too old at the beginning", "max_age=300", func(*setup) {}, 5 * time.Minute, 12 * time.Minute, false},
		{"too old, quick", "max_age=300", func(*setup) {}, 0, 7 * time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.option)
			g.as.Set(func(k *fakeas.Knobs) {
				k.LoginIDToken.Claims.Set = map[string]any{"auth_time": time.Now().Add(-tt.authenticated).Unix()}
			})
			b := g.browser()
			target := b.start("/oauth2/login?return_to=/wanted&" + tt.query)
			login := b.jar.logins()[0]
			a, _ := g.handler.openLoginAttempt(login)
			a.Begun = a.Begun.Add(-tt.begun)
			w := httptest.NewRecorder()
			if err := g.handler.setLoginAttempt(w, &cookies{}, login.Name, a); err != nil {
				t.Fatal(err)
			}
			b.jar.set(w.Result().Header["Set-Cookie"])
			got := b.open(b.approve(target))
			if tt.ok {
				b.wantAppAt(got, "/wanted")
				return
			}
			wantLoginLink(t, got, 502, "login_failed")
		})
	}
}

// TestLoginParamsThatALinkMustNotChooseAreRefused at start.
func TestLoginParamsThatALinkMustNotChooseAreRefused(t *testing.T) {
	for _, name := range []string{
		"state", "nonce", "redirect_uri", "client_id", "client_secret", "code_challenge", "code_challenge_method", "response_type", "response_mode",
		"request", "request_uri", "scope", "audience", "resource", "claims", "authorization_details", "registration", "id_token_hint", "client_assertion",
		"return_to", "target_link_uri", "iss", "", "a b", "a=b", "a&b", "é", "a\nb",
	} {
		if _, err := New(wholeConfig(t, func(c *Config) { c.LoginParams = []string{"kc_idp_hint", name} })); err == nil || !strings.Contains(err.Error(), "login_param") {
			t.Errorf("%q: got error %v, want one that names login_param", name, err)
		}
	}
	for _, names := range [][]string{nil, {"kc_idp_hint", "domain_hint", "connection", "organization", "screen_hint"}, {"prompt", "acr_values", "max_age"}} {
		if _, err := New(wholeConfig(t, func(c *Config) { c.LoginParams = names })); err != nil {
			t.Errorf("%q: got error %v, want none", names, err)
		}
	}
}

// thirdPartyLogin sends the parameters of a third party to the login endpoint, with GET
// or as a form, and follows the redirect from POST to GET.
func (b *browser) thirdPartyLogin(method string, q url.Values) *answer {
	b.t.Helper()
	if method == http.MethodGet {
		r := b.request(http.MethodGet, "/oauth2/login?"+q.Encode(), navigation...)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		return b.send(r, true)
	}
	a := b.submit("/oauth2/login", q.Encode(), "https://portal.test")
	if a.status != http.StatusSeeOther {
		return a
	}
	if a.header["Set-Cookie"] != nil || !strings.HasPrefix(a.location(), "/oauth2/login?") {
		b.t.Errorf("answer to the form: got Location %s and cookies %q, want the login and none", a.location(), a.header["Set-Cookie"])
	}
	r := b.request(http.MethodGet, a.location(), navigation...)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	return b.send(r, true)
}

// TestThirdPartyBeginsALogin (OpenID Connect Core, section 4) with GET and with POST.
func TestThirdPartyBeginsALogin(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.LoginParams = []string{"kc_idp_hint"} })
			for target, path := range map[string]string{
				"": "/", "/here?a=1": "/here?a=1", appOrigin + "/deep/page": "/deep/page", "https://app.test:443/x": "/x",
				"https://evil.test/": "/", "//evil.test": "/", `/\evil.test`: "/", "javascript:alert(1)": "/", "https://app.test.evil.test/": "/",
				"https://app.test@evil.test/": "/", "http://app.test/": "/", "/oauth2/logout": "/", "/%2e%2e/oauth2/logout": "/",
			} {
				b := g.browser()
				a := b.thirdPartyLogin(method, url.Values{"iss": {g.as.URL}, "login_hint": {"bob"}, "target_link_uri": {target}, "kc_idp_hint": {"google"}, "scope": {"admin"}, "redirect_uri": {"https://evil.test"}})
				wantNewLogin(t, g, a)
				q := sentParams(t, a.location())
				if q.Get("login_hint") != "bob" || q.Get("kc_idp_hint") != "google" || q.Get("scope") != "openid" || strings.Contains(a.location(), "evil.test") {
					t.Errorf("%s: got %s, want the hints and nothing else of the third party", target, a.location())
				}
				b.wantAppAt(b.open(b.approve(a.location())), path)
			}
		})
	}
}

// TestThirdPartyNamesTheIssuer exactly: another one is refused with a page, at once.
func TestThirdPartyNamesTheIssuer(t *testing.T) {
	g := newRig(t)
	for _, method := range []string{"GET", "POST"} {
		for _, iss := range [][]string{{"https://evil.test"}, {g.as.URL + "/"}, {strings.ToUpper(g.as.URL)}, {g.as.URL, g.as.URL}, {g.as.URL, ""}} {
			a := g.browser().thirdPartyLogin(method, url.Values{"iss": iss, "target_link_uri": {"/x"}})
			if a.status != 400 || !strings.Contains(a.body, "bad_request") || !strings.Contains(a.body, "<a href=") || a.header["Set-Cookie"] != nil || a.location() != "" {
				t.Errorf("%s, iss %q: got status %d: %s, want 400 with a page", method, iss, a.status, a.body)
			}
		}
	}
}

// TestThirdPartyReplacesNoSession: neither with GET nor with POST, although the form
// comes without the cookies.
func TestThirdPartyReplacesNoSession(t *testing.T) {
	for _, mode := range []string{"lax", "none"} {
		for _, method := range []string{"GET", "POST"} {
			g := newRig(t, sameSite(mode))
			b := g.loggedIn()
			session := b.jar.get(sessionCookie).Value
			a := b.thirdPartyLogin(method, url.Values{"iss": {g.as.URL}, "login_hint": {"mallory"}, "target_link_uri": {"/here"}})
			wantNewLogin(t, g, a)
			b.wantAppAt(b.open(b.approve(a.location())), "/here")
			if b.jar.get(sessionCookie).Value != session || g.as.codesRedeemed() != 1 {
				t.Errorf("%s, %s: got another session, want the same", mode, method)
			}
		}
	}
}

// TestFormsOfAnotherSiteLeaveFewCookies: a form comes without the cookies that limit the
// attempts of a browser.
func TestFormsOfAnotherSiteLeaveFewCookies(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	for range 20 {
		b.thirdPartyLogin("POST", url.Values{"iss": {g.as.URL}})
	}
	if n := len(b.jar.logins()); n > mostLogins {
		t.Errorf("got %d login cookies, want at most %d", n, mostLogins)
	}
}

// TestBrokenLoginFormsAreRefused, and so are requests that no window sends.
func TestBrokenLoginFormsAreRefused(t *testing.T) {
	g := newRig(t)
	send := func(mediaType, body string, header []string) *answer {
		r := g.request("POST", "/oauth2/login", header...)
		r.Header.Set("Content-Type", mediaType)
		r.Body = io.NopCloser(strings.NewReader(body))
		return g.do(r)
	}
	for name, tt := range map[string]struct{ media, body string }{
		"JSON":      {"application/json", `{"iss":"x"}`},
		"multipart": {"multipart/form-data; boundary=x", "--x--"},
		"text":      {"text/plain", "login_hint=bob"},
		"encoding":  {urlencoded, "login_hint=%zz"},
		"large":     {urlencoded, strings.Repeat("x", maxForm+1)},
		"twice":     {urlencoded, "login_hint=a&login_hint=b"},
		"prompt":    {urlencoded, "prompt=create"},
	} {
		if a := send(tt.media, tt.body, formPost[:4]); a.status != 400 || a.location() != "" {
			t.Errorf("%s: got status %d, want 400", name, a.status)
		}
	}
	r := g.request("POST", "/oauth2/login?login_hint=a", formPost...)
	r.Body = io.NopCloser(strings.NewReader("login_hint=b"))
	if a := g.do(r); a.status != 400 {
		t.Errorf("a parameter in the URL and in the form: got status %d, want 400", a.status)
	}
	frame := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", acceptHTML}
	for _, header := range [][]string{script, frame} {
		if a := send(urlencoded, "login_hint=bob", slices.Clone(header)); a.status != 401 || a.location() != "" || a.header["Set-Cookie"] != nil {
			t.Errorf("%q: got status %d, want 401", header, a.status)
		}
	}
}
