package fakeas

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestEndSessionRevokesTokensAndRedirects(t *testing.T) {
	g := newRig(t)
	plain, offline := g.login("scope", "openid"), g.login()
	bye := url.QueryEscape("https://app.test/bye")
	tests := []struct {
		name, query string
		status      int
		location    string
	}{
		{"hint, state", "id_token_hint=" + plain.text("id_token") + "&post_logout_redirect_uri=" + bye + "&state=s%26t", 302, "https://app.test/bye?state=s%26t"},
		{"offline access", "id_token_hint=" + offline.text("id_token") + "&post_logout_redirect_uri=" + bye, 302, "https://app.test/bye"},
		{"client_id instead", "client_id=app&post_logout_redirect_uri=" + bye, 302, "https://app.test/bye"},
		{"other URI", "client_id=app&post_logout_redirect_uri=https://evil.test", 400, ""},
		{"URI without a client", "post_logout_redirect_uri=" + bye, 400, ""},
		{"forged hint", "id_token_hint=" + plain.text("id_token") + "x", 400, ""},
		{"two clients", "client_id=other&id_token_hint=" + plain.text("id_token"), 400, ""},
		{"nothing", "", 200, ""},
	}
	for _, tt := range tests {
		if r := g.get("/end_session?" + tt.query); r.status != tt.status || r.header.Get("Location") != tt.location {
			t.Errorf("%s: got status %d and location %q, want %d and %q", tt.name, r.status, r.header.Get("Location"), tt.status, tt.location)
		}
	}
	g.wantError(g.refresh(plain.text("refresh_token")), 400, "invalid_grant")
	g.wantRefreshed(offline.text("refresh_token"))
	g.as.Set(func(k *Knobs) { k.EndSessionNeedsHint = true })
	if r := g.get("/end_session?client_id=app"); r.status != 400 {
		t.Errorf("EndSessionNeedsHint without a hint: got status %d, want 400", r.status)
	}
	if r := g.get("/logout?client_id=app&logout_uri=" + bye); r.header.Get("Location") != "https://app.test/bye" {
		t.Errorf("Cognito: got status %d and location %q, want a redirect to the logout URI", r.status, r.header.Get("Location"))
	}
	if r := g.get("/logout?client_id=app&logout_uri=https://evil.test"); r.status != 400 {
		t.Errorf("Cognito with an unregistered URI: got status %d, want 400", r.status)
	}
}

func TestBackchannelLogoutSendsASignedLogoutToken(t *testing.T) {
	g := newRig(t)
	var got string
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.Header.Get("Content-Type") + " " + string(body)
		w.WriteHeader(http.StatusTeapot)
	}))
	defer app.Close()
	client := basicClient
	client.BackchannelLogoutURI = app.URL
	g.as.AddClient(client)

	token, err := g.as.LogoutToken(Logout{ClientID: "app", Subject: "alice", SessionID: "sid_1", Edit: TokenEdit{Claims: Edit{Omit: []string{"jti"}}}})
	if err != nil {
		t.Fatal(err)
	}
	status, err := g.as.SendLogout(t.Context(), app.Client(), "app", token)
	if err != nil || status != http.StatusTeapot || got != "POST application/x-www-form-urlencoded logout_token="+token {
		t.Errorf("got status %d, error %v and request %s, want 418 and a POST of the token", status, err, got)
	}
	keys := g.publishedKeys()
	claims := jwt.MapClaims{}
	parsed, err := jwt.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) { return keys[t.Header["kid"].(string)], nil })
	if err != nil {
		t.Fatal(err)
	}
	events, _ := claims["events"].(map[string]any)
	if _, ok := events["http://schemas.openid.net/event/backchannel-logout"]; !ok || claims["sid"] != "sid_1" || claims["sub"] != "alice" ||
		claims["aud"] != "app" || claims["jti"] != nil || claims["iat"] == nil || claims["exp"] == nil || parsed.Header["typ"] != "logout+jwt" {
		t.Errorf("got header %v and claims %v", parsed.Header, claims)
	}
	bad, err := g.as.LogoutToken(Logout{ClientID: "app", Subject: "alice", Edit: TokenEdit{Defect: DefectHMACSecret}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwt.Parse(bad, func(*jwt.Token) (any, error) { return []byte("s3cret"), nil }); err != nil {
		t.Errorf("verifying DefectHMACSecret with the client secret: %v", err)
	}
	if _, err := g.as.SendLogout(t.Context(), app.Client(), "unknown", token); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("SendLogout to an unknown client: got error %v, want one that names it", err)
	}
}

// TestEachLogoutDefectInvalidatesTheToken also shows that Secrets has the token.
func TestEachLogoutDefectInvalidatesTheToken(t *testing.T) {
	g := newRig(t)
	seen := map[string]string{}
	for _, d := range LogoutDefects() {
		token, err := g.as.LogoutToken(Logout{ClientID: "app", Subject: "alice", Edit: d.Edit})
		if err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
		if seen[d.Name] != "" || !slices.Contains(g.as.Secrets(), token) {
			t.Errorf("%s is not unique, or Secrets lacks its token", d.Name)
		}
		seen[d.Name] = token
		keys, claims := g.publishedKeys(), jwt.MapClaims{}
		_, err = jwt.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
			key, ok := keys[t.Header["kid"].(string)]
			if !ok || t.Header["crit"] != nil || t.Header["typ"] != "logout+jwt" {
				return nil, jwt.ErrTokenUnverifiable
			}
			return key, nil
		}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithIssuer(g.as.URL), jwt.WithAudience("app"))
		events, _ := claims["events"].(map[string]any)
		_, event := events[logoutEvent].(map[string]any)
		aud, _ := claims.GetAudience()
		iat, _ := claims.GetIssuedAt()
		if err == nil && event && claims["nonce"] == nil && claims["jti"] != nil && claims["sub"] != nil && claims["azp"] == nil &&
			len(aud) == 1 && iat != nil && time.Since(iat.Time) < time.Minute {
			t.Errorf("%s: the token is valid, want an error", d.Name)
		}
	}
}
