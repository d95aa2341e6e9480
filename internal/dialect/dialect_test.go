package dialect

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
)

const (
	callback  = "https://app.test/callback"
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636, appendix B
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

var (
	orderCloud = OrderCloud{ClientID: "oc", RedirectURI: callback}
	auth0      = Auth0{ClientID: "a0", ClientSecret: "s+e", RedirectURI: callback, Audience: "https://api.test"}
	pagero     = Pagero{ClientID: "pg:1", ClientSecret: "s+e", RedirectURI: callback}
)

// browser plays browser and client against a server.
type browser struct {
	t *testing.T
	s *Server
}

func (b browser) authorize(params url.Values) (code string) {
	b.t.Helper()
	q := url.Values{
		"response_type": {"code"}, "client_id": {b.s.rules.clientID}, "redirect_uri": {callback}, "state": {"st&te"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	maps.Copy(q, params)
	w := httptest.NewRecorder()
	b.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, b.s.AuthorizationEndpoint()+"?"+q.Encode(), nil))
	u, err := url.Parse(w.Header().Get("Location"))
	if err != nil || w.Code != http.StatusFound || u.Query().Get("state") != "st&te" || !strings.HasPrefix(u.String(), callback+"?") {
		b.t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	return u.Query().Get("code")
}

// token sends a token request, with Basic credentials if there are any.
func (b browser) token(form url.Values, contentType string, basic ...string) (int, map[string]any) {
	b.t.Helper()
	r := httptest.NewRequest(http.MethodPost, b.s.TokenEndpoint(), strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", contentType)
	if len(basic) == 2 {
		r.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	w := httptest.NewRecorder()
	b.s.ServeHTTP(w, r)
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		b.t.Fatalf("%v: %s", err, w.Body)
	}
	return w.Code, m
}

const formType = "application/x-www-form-urlencoded"

// credentials are the client's parameters in the body.
func (b browser) credentials(form url.Values) url.Values {
	form = maps.Clone(form)
	form.Set("client_id", b.s.rules.clientID)
	if b.s.rules.clientSecret != "" {
		form.Set("client_secret", b.s.rules.clientSecret)
	}
	return form
}

func (b browser) login(params url.Values) map[string]any {
	b.t.Helper()
	status, m := b.token(b.credentials(url.Values{
		"grant_type": {"authorization_code"}, "code": {b.authorize(params)}, "redirect_uri": {callback}, "code_verifier": {verifier},
	}), formType)
	if status != 200 {
		b.t.Fatalf("login: %d %v", status, m)
	}
	return m
}

// refresh sends the documented refresh request.
func (b browser) refresh(token any) (int, map[string]any) {
	b.t.Helper()
	form := b.credentials(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}})
	for name, value := range b.s.rules.refresh.required {
		form.Set(name, value)
	}
	return b.token(form, formType)
}

func (b browser) wantViolations(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.s.Violations()); diff != "" {
		b.t.Errorf("violations:\n%s", diff)
	}
}

func members(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

func TestOrderCloud(t *testing.T) {
	b := browser{t, New("https://as.test", orderCloud)}
	first := b.login(nil)
	if members(first) != "access_token expires_in refresh_token token_type" || first["token_type"] != "bearer" || first["expires_in"] != 35999.0 {
		t.Errorf("answer: %v", first)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(first["refresh_token"].(string)) {
		t.Errorf("refresh token %v", first["refresh_token"])
	}
	// The documented request, content type included.
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first["refresh_token"].(string)}, "client_id": {"oc"}, "scope": {"FullAccess"}}
	for range 2 {
		status, m := b.token(form, "text/html; charset=UTF-8")
		if status != 200 || m["refresh_token"] != first["refresh_token"] || m["access_token"] == first["access_token"] {
			t.Errorf("refresh: %d %v", status, m)
		}
	}
	b.wantViolations()
	if b.s.Refreshes() != 2 || len(b.s.SentTwice()) != 1 {
		t.Errorf("%d refreshes, %d sent twice", b.s.Refreshes(), len(b.s.SentTwice()))
	}
	b.s.SetLifetimes(time.Minute, 0)
	if m := b.login(nil); members(m) != "access_token expires_in token_type" {
		t.Errorf("refresh duration 0: %v", m)
	}
}

func TestAuth0(t *testing.T) {
	b := browser{t, New("https://as.test", auth0)}
	offline := url.Values{"audience": {"https://api.test"}, "scope": {"offline_access"}}
	first := b.login(offline)
	if members(first) != "access_token refresh_token token_type" || first["token_type"] != "Bearer" {
		t.Errorf("answer: %v", first)
	}
	if status, m := b.refresh(first["refresh_token"]); status != 200 || members(m) != "access_token token_type" {
		t.Errorf("refresh: %d %v", status, m)
	}
	for _, lacking := range []url.Values{{"audience": {"https://api.test"}}, {"scope": {"offline_access"}}, {"scope": {"offline_access"}, "audience": {"other"}}} {
		if m := b.login(lacking); m["refresh_token"] != nil {
			t.Errorf("refresh token for %v", lacking)
		}
	}
	b.wantViolations()

	rotating := auth0
	rotating.Rotation, rotating.ExpiresIn = true, true
	b = browser{t, New("https://as.test", rotating)}
	first = b.login(url.Values{"audience": {"https://api.test"}, "scope": {"openid offline_access"}, "nonce": {"n"}})
	if members(first) != "access_token expires_in id_token refresh_token token_type" {
		t.Errorf("answer: %v", first)
	}
	b.wantIDToken(first["id_token"].(string))
	status, second := b.refresh(first["refresh_token"])
	if status != 200 || second["refresh_token"] == first["refresh_token"] {
		t.Errorf("refresh: %d %v", status, second)
	}
	b.wantIDToken(second["id_token"].(string))
	if status, m := b.refresh(first["refresh_token"]); status != 403 || m["error"] != "invalid_grant" {
		t.Errorf("spent token: %d %v", status, m)
	}
	b.wantViolations()
}

func (b browser) wantIDToken(token string) {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://as.test/.well-known/jwks.json", nil))
	key, err := signingKey()
	if err != nil || !strings.Contains(w.Body.String(), base64.RawURLEncoding.EncodeToString(key.N.Bytes())) {
		b.t.Fatalf("%v: %s", err, w.Body)
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil },
		jwt.WithIssuer("https://as.test/"), jwt.WithAudience("a0"), jwt.WithExpirationRequired()); err != nil || claims["nonce"] != "n" || claims["sub"] != "auth0|alice" {
		b.t.Errorf("%v: %v", err, claims)
	}
	w = httptest.NewRecorder()
	b.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://as.test/.well-known/openid-configuration", nil))
	if !strings.Contains(w.Body.String(), `"issuer":"https://as.test/"`) {
		b.t.Errorf("metadata: %s", w.Body)
	}
}

func TestPagero(t *testing.T) {
	b := browser{t, New("https://as.test", pagero)}
	first := b.login(nil)
	if members(first) != "access_token claims expires_in refresh_token scope token_type" || first["token_type"] != "bearer" ||
		first["scope"] != "" || first["claims"] != "publicid" || first["expires_in"] != 600.0 {
		t.Errorf("answer: %v", first)
	}
	if strings.Count(first["access_token"].(string), ".") != 2 || !strings.HasPrefix(first["refresh_token"].(string), "_1XBPWQQ_") {
		t.Errorf("answer: %v", first)
	}
	status, second := b.refresh(first["refresh_token"])
	if status != 200 {
		t.Fatalf("refresh: %d %v", status, second)
	}
	// The documented request with the header option.
	status, third := b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {second["refresh_token"].(string)}}, formType, "pg:1", "s+e")
	if status != 200 {
		t.Fatalf("refresh with Basic: %d %v", status, third)
	}
	if len(b.s.SentTwice()) != 0 {
		t.Error("nothing was sent twice")
	}
	if status, m := b.refresh(first["refresh_token"]); status != 400 || m["error"] != "invalid_grant" {
		t.Errorf("spent token: %d %v", status, m)
	}
	if diff := cmp.Diff([]string{first["refresh_token"].(string)}, b.s.SentTwice()); diff != "" || b.s.Refreshes() != 2 {
		t.Errorf("%d refreshes, sent twice:\n%s", b.s.Refreshes(), diff)
	}
	b.wantViolations()
}

func TestLifetimes(t *testing.T) {
	rotating := auth0
	rotating.Rotation, rotating.ExpiresIn = true, true
	for name, p := range map[string]struct {
		provider Provider
		rolling  bool
		params   url.Values
	}{
		"OrderCloud": {orderCloud, false, nil}, "Pagero": {pagero, true, nil},
		"Auth0": {rotating, false, url.Values{"audience": {auth0.Audience}, "scope": {"offline_access"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := browser{t, New("https://as.test", p.provider)}
				b.s.SetLifetimes(5*time.Second, 10*time.Second)
				m := b.login(p.params)
				access := m["access_token"].(string)
				time.Sleep(5*time.Second - time.Nanosecond)
				if m["expires_in"] != 5.0 || !b.s.ValidAccessToken(access) || b.s.ValidAccessToken(access+"x") {
					t.Errorf("answer: %v", m)
				}
				time.Sleep(time.Nanosecond)
				if b.s.ValidAccessToken(access) {
					t.Error("valid beyond its lifetime")
				}
				_, m = b.refresh(m["refresh_token"])
				time.Sleep(6 * time.Second)
				if status, _ := b.refresh(m["refresh_token"]); (status == 200) != p.rolling {
					t.Errorf("status %d after 11 s", status)
				}
				b.wantViolations()
			})
		})
	}
}

func TestTokenViolations(t *testing.T) {
	set := func(name, value string) func(url.Values) { return func(v url.Values) { v.Set(name, value) } }
	del := func(name string) func(url.Values) { return func(v url.Values) { v.Del(name) } }
	native := auth0
	native.ClientSecret = ""
	tests := []struct {
		name     string
		provider Provider
		spoil    func(url.Values)
		basic    bool
		mime     string
		status   int
		error    string
		want     string
	}{
		{"OrderCloud without scope", orderCloud, del("scope"), false, formType, 400, "invalid_request", "token: parameter scope is missing"},
		{"OrderCloud, other scope", orderCloud, set("scope", "x"), false, formType, 400, "invalid_request", `token: parameter scope is not "FullAccess"`},
		{"OrderCloud with a secret", orderCloud, set("client_secret", "x"), false, formType, 401, "invalid_client", "token: wrong client credentials"},
		{"OrderCloud with Basic", orderCloud, del("client_id"), true, formType, 401, "invalid_client", "token: Basic authentication"},
		{"Auth0 with audience", auth0, set("audience", "x"), false, formType, 400, "invalid_request", "token: unknown parameter audience"},
		{"Auth0 with Basic", auth0, func(v url.Values) { v.Del("client_id"); v.Del("client_secret") }, true, formType, 401, "access_denied", "token: Basic authentication"},
		{"Auth0 without secret", auth0, del("client_secret"), false, formType, 401, "access_denied", "token: wrong client credentials"},
		{"Auth0 native with secret", native, set("client_secret", "x"), false, formType, 401, "access_denied", "token: wrong client credentials"},
		{"Auth0, text/html", auth0, func(url.Values) {}, false, "text/html", 400, "invalid_request", `token: content type "text/html"`},
		{"Pagero with scope", pagero, set("scope", "x"), false, formType, 400, "invalid_request", "token: unknown parameter scope"},
		{"Pagero with both", pagero, func(url.Values) {}, true, formType, 401, "invalid_client", "token: credentials in header and body"},
		{"repeated", pagero, func(v url.Values) { v.Add("refresh_token", "x") }, false, formType, 400, "invalid_request", "token: parameter refresh_token is repeated"},
		{"empty", pagero, set("refresh_token", ""), false, formType, 400, "invalid_request", "token: parameter refresh_token is empty"},
		{"grant", pagero, set("grant_type", "password"), false, formType, 400, "unsupported_grant_type", `token: grant_type "password"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := browser{t, New("https://as.test", tt.provider)}
			m := b.login(url.Values{"scope": {"offline_access"}}) // harmless where unknown
			token, _ := m["refresh_token"].(string)
			form := b.credentials(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token + "x"}})
			for name, value := range b.s.rules.refresh.required {
				form.Set(name, value)
			}
			tt.spoil(form)
			var basic []string
			if tt.basic {
				basic = []string{b.s.rules.clientID, b.s.rules.clientSecret}
			}
			status, got := b.token(form, tt.mime, basic...)
			if status != tt.status || got["error"] != tt.error {
				t.Errorf("%d %v, want %d %s", status, got, tt.status, tt.error)
			}
			b.wantViolations(tt.want)
		})
	}
}

func TestAuthorizeViolations(t *testing.T) {
	good := "response_type=code&client_id=pg:1&redirect_uri=" + callback + "&state=s"
	for query, want := range map[string]string{
		good + "&nonce=n":                         "authorize: unknown parameter nonce",
		good + "&state=t":                         "authorize: parameter state is repeated",
		good + "&code_challenge=x":                "authorize: code_challenge_method is not S256",
		strings.TrimSuffix(good, "s"):             "authorize: parameter state is empty",
		strings.TrimSuffix(good, "&state=s"):      "authorize: parameter state is missing",
		strings.Replace(good, "/callback", "", 1): `authorize: parameter redirect_uri is not "` + callback + `"`,
	} {
		b := browser{t, New("https://as.test", pagero)}
		w := httptest.NewRecorder()
		b.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, b.s.AuthorizationEndpoint()+"?"+query, nil))
		if w.Code != 400 || w.Header().Get("Location") != "" {
			t.Errorf("%s: %d %q", query, w.Code, w.Header().Get("Location"))
		}
		b.wantViolations(want)
	}
}

func TestCodes(t *testing.T) {
	b := browser{t, New("https://as.test", pagero)}
	form := func(code, verifier string) url.Values {
		v := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
		if verifier != "" {
			v.Set("code_verifier", verifier)
		}
		return b.credentials(v)
	}
	code := b.authorize(nil)
	for _, tt := range []struct {
		verifier string
		want     int
	}{{"", 400}, {strings.Repeat("x", 43), 400}, {verifier, 200}, {verifier, 400}} {
		if status, m := b.token(form(code, tt.verifier), formType); status != tt.want {
			t.Errorf("verifier %q: %d %v, want %d", tt.verifier, status, m, tt.want)
		}
	}
	if !slices.Contains(b.s.Secrets(), code) {
		t.Error("the code is missing in Secrets")
	}
	b.wantViolations()
}

func TestStart(t *testing.T) {
	s := Start(t, pagero)
	resp, err := http.Get(s.URL + "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 404 {
		t.Errorf("%d, %v", resp.StatusCode, err)
	}
	browser{t, s}.wantViolations("request to /elsewhere")
}
