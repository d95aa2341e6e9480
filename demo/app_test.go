package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const testIssuer = "http://127.0.0.1:9980"

func get(t *testing.T, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	newApp(testIssuer).ServeHTTP(w, r)
	return w
}

func TestPageEscapesRequestValues(t *testing.T) {
	const hostile = `</pre><script>alert("x")</script><img src=x onerror=alert(1)>`
	for _, tc := range []struct {
		name   string
		header http.Header
	}{
		{"user", http.Header{"X-User": {hostile}}},
		{"another header's value", http.Header{"X-Forwarded-Host": {hostile}}},
		{"another header's name", http.Header{hostile: {"1"}}},
		{"opaque token", http.Header{"Authorization": {"Bearer " + hostile}}},
		{"token header", http.Header{"Authorization": {"Bearer " + jwt(`{"alg":"`+jsonText(hostile)+`"}`, `{}`)}}},
		{"token payload", http.Header{"Authorization": {"Bearer " + jwt(`{}`, `{"name":"`+jsonText(hostile)+`"}`)}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			body := get(t, "/", tc.header).Body.String()
			for _, bad := range []string{"<script>", "<img", "</pre><"} {
				if strings.Contains(body, bad) {
					t.Errorf("the page contains %s, want it escaped", bad)
				}
			}
			if !strings.Contains(body, "onerror=alert(1)&gt;") {
				t.Error("the page lacks the escaped value")
			}
		})
	}
}

func jsonText(s string) string { return strings.ReplaceAll(s, `"`, `\"`) }

func TestPageShowsTheRequest(t *testing.T) {
	token := jwt(`{"alg":"RS256"}`, `{"iat":1700000000,"exp":1700000030}`)
	body := get(t, "/", http.Header{
		"Authorization": {"Bearer " + token},
		"X-User":        {"demo-user"},
		"Cookie":        {"theme=dark"},
	}).Body.String()
	for _, want := range []string{token, "The token lives for 30s.", "&#34;alg&#34;: &#34;RS256&#34;", "demo-user", "The app got these cookies: theme."} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestPageReportsSessionCookie(t *testing.T) {
	for _, tc := range []struct {
		cookie string
		want   bool
	}{
		{"__Host-oauth_session=x", true},
		{"theme=dark; __Host-oauth_login_abc=x", true},
		{"theme=dark", false},
		{"", false},
	} {
		w := get(t, "/received", http.Header{"Cookie": {tc.cookie}})
		var got received
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.SessionCookie != tc.want {
			t.Errorf("%q: got session_cookie %t, want %t", tc.cookie, got.SessionCookie, tc.want)
		}
		page := get(t, "/", http.Header{"Cookie": {tc.cookie}}).Body.String()
		if got := strings.Contains(page, "This must not happen"); got != tc.want {
			t.Errorf("%q: got a warning on the page: %t, want %t", tc.cookie, got, tc.want)
		}
	}
}

func TestEveryAnswerHasAContentSecurityPolicy(t *testing.T) {
	for _, path := range []string{"/", "/received", "/page.js", "/page.css", "/nothing"} {
		h := get(t, path, http.Header{}).Header()
		policy := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: got policy %q, want default-src 'none' and nothing unsafe", path, policy)
		}
		// Signing out redirects the form to the issuer.
		if !strings.Contains(policy, "form-action 'self' "+testIssuer+";") {
			t.Errorf("%s: got policy %q, want the issuer in form-action", path, policy)
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got headers %v, want no-store and nosniff", path, h)
		}
	}
}
