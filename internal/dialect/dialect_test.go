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

// flow runs logins and refreshes against a server, as browser and as client.
type flow struct {
	t *testing.T
	s *Server
}

func (f flow) authorize(params url.Values) (code string) {
	f.t.Helper()
	q := url.Values{
		"response_type": {"code"}, "client_id": {f.s.rules.clientID}, "redirect_uri": {callback}, "state": {"st&te"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	maps.Copy(q, params)
	w := httptest.NewRecorder()
	f.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, f.s.AuthorizationEndpoint()+"?"+q.Encode(), nil))
	u, err := url.Parse(w.Header().Get("Location"))
	if err != nil || w.Code != http.StatusFound || u.Query().Get("state") != "st&te" || !strings.HasPrefix(u.String(), callback+"?") {
		f.t.Fatalf("authorize: got status %d, location %q, error %v, want a redirect to %s: %s", w.Code, w.Header().Get("Location"), err, callback, w.Body)
	}
	return u.Query().Get("code")
}

// token sends a token request, with Basic credentials if basic has an ID and a secret.
func (f flow) token(form url.Values, contentType string, basic ...string) (int, map[string]any) {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodPost, f.s.TokenEndpoint(), strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", contentType)
	if len(basic) == 2 {
		r.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	w := httptest.NewRecorder()
	f.s.ServeHTTP(w, r)
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		f.t.Fatalf("reading the token answer: %v: %s", err, w.Body)
	}
	return w.Code, m
}

const formType = "application/x-www-form-urlencoded"

// credentials adds the client's credentials to a copy of the form.
func (f flow) credentials(form url.Values) url.Values {
	form = maps.Clone(form)
	form.Set("client_id", f.s.rules.clientID)
	if f.s.rules.clientSecret != "" {
		form.Set("client_secret", f.s.rules.clientSecret)
	}
	return form
}

func (f flow) login(params url.Values) map[string]any {
	f.t.Helper()
	status, m := f.token(f.credentials(url.Values{
		"grant_type": {"authorization_code"}, "code": {f.authorize(params)}, "redirect_uri": {callback}, "code_verifier": {verifier},
	}), formType)
	if status != 200 {
		f.t.Fatalf("login: got status %d, want 200: %v", status, m)
	}
	return m
}

// refresh sends the documented refresh request.
func (f flow) refresh(token any) (int, map[string]any) {
	f.t.Helper()
	form := f.credentials(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}})
	for name, value := range f.s.rules.refresh.required {
		form.Set(name, value)
	}
	return f.token(form, formType)
}

func (f flow) wantViolations(want ...string) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.s.Violations()); diff != "" {
		f.t.Errorf("violations (-want +got):\n%s", diff)
	}
}

// members returns the sorted member names of a JSON object.
func members(m map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

func TestOrderCloudReusesRefreshToken(t *testing.T) {
	f := flow{t, New("https://as.test", orderCloud)}
	first := f.login(nil)
	if members(first) != "access_token expires_in refresh_token token_type" || first["token_type"] != "bearer" || first["expires_in"] != 35999.0 {
		t.Errorf("login answer: got %v", first)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(first["refresh_token"].(string)) {
		t.Errorf("refresh token: got %v, want a UUID", first["refresh_token"])
	}
	// The documented request, content type included.
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first["refresh_token"].(string)}, "client_id": {"oc"}, "scope": {"FullAccess"}}
	for range 2 {
		status, m := f.token(form, "text/html; charset=UTF-8")
		if status != 200 || m["refresh_token"] != first["refresh_token"] || m["access_token"] == first["access_token"] {
			t.Errorf("refresh: got %d %v, want 200, the same refresh token and a new access token", status, m)
		}
	}
	f.wantViolations()
	if f.s.Refreshes() != 2 || len(f.s.SentTwice()) != 1 {
		t.Errorf("got %d refreshes and %d tokens sent twice, want 2 and 1", f.s.Refreshes(), len(f.s.SentTwice()))
	}
	f.s.SetLifetimes(time.Minute, 0)
	if m := f.login(nil); members(m) != "access_token expires_in token_type" {
		t.Errorf("login with a refresh lifetime of 0: got %v, want no refresh token", m)
	}
}

func TestAuth0IssuesRefreshTokenOnlyForOfflineAccess(t *testing.T) {
	f := flow{t, New("https://as.test", auth0)}
	offline := url.Values{"audience": {"https://api.test"}, "scope": {"offline_access"}}
	first := f.login(offline)
	if members(first) != "access_token refresh_token token_type" || first["token_type"] != "Bearer" {
		t.Errorf("login answer: got %v", first)
	}
	if status, m := f.refresh(first["refresh_token"]); status != 200 || members(m) != "access_token token_type" {
		t.Errorf("refresh: got %d %v, want 200 without a refresh token", status, m)
	}
	for _, params := range []url.Values{{"audience": {"https://api.test"}}, {"scope": {"offline_access"}}, {"scope": {"offline_access"}, "audience": {"other"}}} {
		if m := f.login(params); m["refresh_token"] != nil {
			t.Errorf("login with %v: got a refresh token, want none", params)
		}
	}
	f.wantViolations()
}

func TestAuth0RotatesRefreshTokens(t *testing.T) {
	rotating := auth0
	rotating.Rotation, rotating.ExpiresIn = true, true
	f := flow{t, New("https://as.test", rotating)}
	first := f.login(url.Values{"audience": {"https://api.test"}, "scope": {"openid offline_access"}, "nonce": {"n"}})
	if members(first) != "access_token expires_in id_token refresh_token token_type" {
		t.Errorf("login answer: got %v", first)
	}
	f.wantIDToken(first["id_token"].(string))
	status, second := f.refresh(first["refresh_token"])
	if status != 200 || second["refresh_token"] == first["refresh_token"] {
		t.Errorf("refresh: got %d %v, want 200 and a new refresh token", status, second)
	}
	f.wantIDToken(second["id_token"].(string))
	if status, m := f.refresh(first["refresh_token"]); status != 403 || m["error"] != "invalid_grant" {
		t.Errorf("refresh with a spent token: got %d %v, want 403 invalid_grant", status, m)
	}
	f.wantViolations()
}

func (f flow) wantIDToken(token string) {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://as.test/.well-known/jwks.json", nil))
	key, err := signingKey()
	if err != nil || !strings.Contains(w.Body.String(), base64.RawURLEncoding.EncodeToString(key.N.Bytes())) {
		f.t.Fatalf("the JWKS lacks the signing key (%v): %s", err, w.Body)
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return &key.PublicKey, nil },
		jwt.WithIssuer("https://as.test/"), jwt.WithAudience("a0"), jwt.WithExpirationRequired()); err != nil || claims["nonce"] != "n" || claims["sub"] != "auth0|alice" {
		f.t.Errorf("ID token: got error %v and claims %v", err, claims)
	}
	w = httptest.NewRecorder()
	f.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://as.test/.well-known/openid-configuration", nil))
	if !strings.Contains(w.Body.String(), `"issuer":"https://as.test/"`) {
		f.t.Errorf("metadata: got %s, want the issuer https://as.test/", w.Body)
	}
}

func TestPageroRotatesRefreshTokens(t *testing.T) {
	f := flow{t, New("https://as.test", pagero)}
	first := f.login(nil)
	if members(first) != "access_token claims expires_in refresh_token scope token_type" || first["token_type"] != "bearer" ||
		first["scope"] != "" || first["claims"] != "publicid" || first["expires_in"] != 600.0 {
		t.Errorf("login answer: got %v", first)
	}
	if strings.Count(first["access_token"].(string), ".") != 2 || !strings.HasPrefix(first["refresh_token"].(string), "_1XBPWQQ_") {
		t.Errorf("login answer: got %v, want a JWT and a refresh token with the prefix _1XBPWQQ_", first)
	}
	status, second := f.refresh(first["refresh_token"])
	if status != 200 {
		t.Fatalf("refresh: got %d %v, want 200", status, second)
	}
	// The documented request, with credentials in the header.
	status, third := f.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {second["refresh_token"].(string)}}, formType, "pg:1", "s+e")
	if status != 200 {
		t.Fatalf("refresh with Basic: got %d %v, want 200", status, third)
	}
	if n := len(f.s.SentTwice()); n != 0 {
		t.Errorf("got %d tokens sent twice, want none", n)
	}
	if status, m := f.refresh(first["refresh_token"]); status != 400 || m["error"] != "invalid_grant" {
		t.Errorf("refresh with a spent token: got %d %v, want 400 invalid_grant", status, m)
	}
	if diff := cmp.Diff([]string{first["refresh_token"].(string)}, f.s.SentTwice()); diff != "" || f.s.Refreshes() != 2 {
		t.Errorf("got %d refreshes, want 2; sent twice (-want +got):\n%s", f.s.Refreshes(), diff)
	}
	f.wantViolations()
}

func TestTokensExpireAtTheirLifetime(t *testing.T) {
	rotating := auth0
	rotating.Rotation, rotating.ExpiresIn = true, true
	for name, tc := range map[string]struct {
		provider Provider
		rolling  bool
		params   url.Values
	}{
		"OrderCloud": {orderCloud, false, nil}, "Pagero": {pagero, true, nil},
		"Auth0": {rotating, false, url.Values{"audience": {auth0.Audience}, "scope": {"offline_access"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := flow{t, New("https://as.test", tc.provider)}
				f.s.SetLifetimes(5*time.Second, 10*time.Second)
				m := f.login(tc.params)
				access := m["access_token"].(string)
				time.Sleep(5*time.Second - time.Nanosecond)
				if m["expires_in"] != 5.0 || !f.s.ValidAccessToken(access) || f.s.ValidAccessToken(access+"x") {
					t.Errorf("just before its expiry, the token of %v is invalid, or another one is valid", m)
				}
				time.Sleep(time.Nanosecond)
				if f.s.ValidAccessToken(access) {
					t.Error("the access token is valid beyond its lifetime")
				}
				_, m = f.refresh(m["refresh_token"])
				time.Sleep(6 * time.Second)
				if status, _ := f.refresh(m["refresh_token"]); (status == 200) != tc.rolling {
					t.Errorf("refresh after 11 s: got status %d, want success: %t", status, tc.rolling)
				}
				f.wantViolations()
			})
		})
	}
}

func TestTokenEndpointRefusesUndocumentedRequests(t *testing.T) {
	set := func(name, value string) func(url.Values) { return func(v url.Values) { v.Set(name, value) } }
	remove := func(name string) func(url.Values) { return func(v url.Values) { v.Del(name) } }
	native := auth0
	native.ClientSecret = ""
	tests := []struct {
		name     string
		provider Provider
		edit     func(url.Values)
		basic    bool
		mime     string
		status   int
		error    string
		want     string
	}{
		{"OrderCloud without scope", orderCloud, remove("scope"), false, formType, 400, "invalid_request", "token: parameter scope is missing"},
		{"OrderCloud, other scope", orderCloud, set("scope", "x"), false, formType, 400, "invalid_request", `token: parameter scope is not "FullAccess"`},
		{"OrderCloud with a secret", orderCloud, set("client_secret", "x"), false, formType, 401, "invalid_client", "token: wrong client credentials"},
		{"OrderCloud with Basic", orderCloud, remove("client_id"), true, formType, 401, "invalid_client", "token: Basic authentication"},
		{"Auth0 with audience", auth0, set("audience", "x"), false, formType, 400, "invalid_request", "token: unknown parameter audience"},
		{"Auth0 with Basic", auth0, func(v url.Values) { v.Del("client_id"); v.Del("client_secret") }, true, formType, 401, "access_denied", "token: Basic authentication"},
		{"Auth0 without secret", auth0, remove("client_secret"), false, formType, 401, "access_denied", "token: wrong client credentials"},
		{"Auth0 native with secret", native, set("client_secret", "x"), false, formType, 401, "access_denied", "token: wrong client credentials"},
		{"Auth0, text/html", auth0, func(url.Values) {}, false, "text/html", 400, "invalid_request", `token: content type "text/html"`},
		{"Pagero with scope", pagero, set("scope", "x"), false, formType, 400, "invalid_request", "token: unknown parameter scope"},
		{"Pagero with Basic and body", pagero, func(url.Values) {}, true, formType, 401, "invalid_client", "token: credentials in header and body"},
		{"repeated parameter", pagero, func(v url.Values) { v.Add("refresh_token", "x") }, false, formType, 400, "invalid_request", "token: parameter refresh_token is repeated"},
		{"empty parameter", pagero, set("refresh_token", ""), false, formType, 400, "invalid_request", "token: parameter refresh_token is empty"},
		{"unknown grant type", pagero, set("grant_type", "password"), false, formType, 400, "unsupported_grant_type", `token: grant_type "password"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := flow{t, New("https://as.test", tt.provider)}
			m := f.login(url.Values{"scope": {"offline_access"}}) // OrderCloud and Pagero ignore it
			token, _ := m["refresh_token"].(string)
			form := f.credentials(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token + "x"}})
			for name, value := range f.s.rules.refresh.required {
				form.Set(name, value)
			}
			tt.edit(form)
			var basic []string
			if tt.basic {
				basic = []string{f.s.rules.clientID, f.s.rules.clientSecret}
			}
			status, got := f.token(form, tt.mime, basic...)
			if status != tt.status || got["error"] != tt.error {
				t.Errorf("got %d %v, want %d %s", status, got, tt.status, tt.error)
			}
			f.wantViolations(tt.want)
		})
	}
}

func TestAuthorizationEndpointRefusesUndocumentedRequests(t *testing.T) {
	good := "response_type=code&client_id=pg:1&redirect_uri=" + callback + "&state=s"
	for query, want := range map[string]string{
		good + "&nonce=n":                         "authorize: unknown parameter nonce",
		good + "&state=t":                         "authorize: parameter state is repeated",
		good + "&code_challenge=x":                "authorize: code_challenge_method is not S256",
		strings.TrimSuffix(good, "s"):             "authorize: parameter state is empty",
		strings.TrimSuffix(good, "&state=s"):      "authorize: parameter state is missing",
		strings.Replace(good, "/callback", "", 1): `authorize: parameter redirect_uri is not "` + callback + `"`,
	} {
		f := flow{t, New("https://as.test", pagero)}
		w := httptest.NewRecorder()
		f.s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, f.s.AuthorizationEndpoint()+"?"+query, nil))
		if w.Code != 400 || w.Header().Get("Location") != "" {
			t.Errorf("%s: got status %d and location %q, want 400 and none", query, w.Code, w.Header().Get("Location"))
		}
		f.wantViolations(want)
	}
}

func TestCodeNeedsItsVerifierAndServesOnce(t *testing.T) {
	f := flow{t, New("https://as.test", pagero)}
	form := func(code, verifier string) url.Values {
		v := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}}
		if verifier != "" {
			v.Set("code_verifier", verifier)
		}
		return f.credentials(v)
	}
	code := f.authorize(nil)
	for _, tt := range []struct {
		verifier string
		want     int
	}{{"", 400}, {strings.Repeat("x", 43), 400}, {verifier, 200}, {verifier, 400}} {
		if status, m := f.token(form(code, tt.verifier), formType); status != tt.want {
			t.Errorf("verifier %q: got %d %v, want %d", tt.verifier, status, m, tt.want)
		}
	}
	if !slices.Contains(f.s.Secrets(), code) {
		t.Error("Secrets lacks the code")
	}
	f.wantViolations()
}

func TestUnknownPathIsAViolation(t *testing.T) {
	s := Start(t, pagero)
	resp, err := http.Get(s.URL + "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 404 {
		t.Errorf("GET /elsewhere: got status %d and error %v, want 404", resp.StatusCode, err)
	}
	flow{t, s}.wantViolations("request to /elsewhere")
}
