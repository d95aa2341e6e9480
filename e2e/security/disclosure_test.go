package security

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// An errorCase is a request that the module answers with an error.
type errorCase struct {
	status   int
	loggedIn bool
	ask      func(b *browser, lines []string) (int, http.Header, []byte)
	only     string // page or document; both if empty
}

// errorCases returns requests for the world's site, for v, which admits no user, and for a site with an
// unreachable authorization server.
func (w *world) errorCases(t *testing.T, v, unreachable *variant) map[string]errorCase {
	crossSite := []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.test"}
	failedLogin := func(edit func(*fakeas.Knobs)) func(b *browser, lines []string) (int, http.Header, []byte) {
		return func(b *browser, _ []string) (int, http.Header, []byte) {
			w.idp.Set(edit)
			defer w.resetServers()
			page, err := b.Visit(t.Context(), w.site+"/x")
			if err != nil {
				t.Fatal(err)
			}
			return page.Status, page.Header, page.Body
		}
	}
	send := func(method, path string, more ...string) func(b *browser, lines []string) (int, http.Header, []byte) {
		return func(b *browser, lines []string) (int, http.Header, []byte) {
			resp := b.send(t, method, path, "", append(slices.Clone(lines), more...)...)
			return resp.Status, resp.Header, resp.Body
		}
	}
	return map[string]errorCase{
		"no session":         {401, false, send(http.MethodPost, "/x"), ""},
		"cross-site":         {403, true, send(http.MethodPost, "/x", crossSite...), "document"},
		"unknown endpoint":   {404, false, send(http.MethodGet, prefix+"/nothing"), ""},
		"wrong method":       {405, false, send(http.MethodDelete, prefix+"/login"), ""},
		"TRACE":              {405, false, send(http.MethodTrace, "/x"), ""},
		"stale callback":     {400, false, send(http.MethodGet, callback), ""},
		"repeated parameter": {400, false, send(http.MethodGet, callback+"?code=a&code=b&state=x"), ""},
		"foreign iss":        {400, false, send(http.MethodGet, login+"?iss=https://evil.test"), "page"},
		"no access": {403, false, func(b *browser, _ []string) (int, http.Header, []byte) {
			page := v.signIn(t, b, "u")
			return page.Status, page.Header, page.Body
		}, "page"},
		"server out of reach": {503, false, func(b *browser, _ []string) (int, http.Header, []byte) {
			page := b.nav(t, unreachable.url+"/x")
			return page.Status, page.Header, page.Body
		}, "page"},
		"bad ID token": {502, false, failedLogin(func(k *fakeas.Knobs) { k.LoginIDToken.Defect = fakeas.DefectFlipped }), "page"},
		"other issuer": {502, false, failedLogin(func(k *fakeas.Knobs) { k.LoginIDToken.Defect = fakeas.DefectIssuer }), "page"},
		"mac token":    {502, false, failedLogin(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"token_type": "mac"} }), "page"},
		"login refused": {403, false, failedLogin(func(k *fakeas.Knobs) {
			k.Callback = fakeas.Edit{Set: map[string]any{"error": "access_denied", "error_description": "/etc/passwd: goroutine 1"}, Omit: []string{"code"}}
		}), "page"},
	}
}

// TestS118ErrorsRevealNothingInternal: error pages and problem documents use fixed texts.
// They contain an error code, with which the operator finds the log line.
func TestS118ErrorsRevealNothingInternal(t *testing.T) {
	w := sharedBare(t)
	v := &variant{name: "pages", options: "require email nobody@example.test"}
	unreachable := &variant{name: "pages-unreachable", issuer: "http://127.0.0.1:1"}
	w.addVariants(t, v, unreachable)
	loggedIn := w.browser()
	loggedIn.login(t, "/")
	for name, tc := range w.errorCases(t, v, unreachable) {
		for kind, lines := range map[string][]string{"page": navigationHeaders, "document": scriptHeaders} {
			if tc.only != "" && tc.only != kind {
				continue
			}
			t.Run(name+", "+kind, func(t *testing.T) {
				b := w.browser()
				if tc.loggedIn {
					b, lines = loggedIn, lines[3:] // the case has its own Sec-Fetch headers
				}
				status, header, body := tc.ask(b, lines)
				if status != tc.status {
					t.Errorf("got %d %s, want %d", status, body, tc.status)
				}
				w.checkGenericPage(t, body)
				for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
					if got := header.Get(name); got != want {
						t.Errorf("got %s %q, want %q", name, got, want)
					}
				}
				if kind == "page" {
					return
				}
				var problem struct{ Title, Code string }
				if err := json.Unmarshal(body, &problem); err != nil || problem.Title == "" || problem.Code == "" {
					t.Errorf("got %s, want a problem document", body)
				}
			})
		}
	}
}

// TestS120SessionEndpointRevealsNoToken: the session endpoint describes the session to the
// site's own pages, without tokens.
func TestS120SessionEndpointRevealsNoToken(t *testing.T) {
	w := shared(t)

	b := w.browser()
	b.loginAs(t, "s120", "/")
	for _, lines := range [][]string{scriptHeaders, append(slices.Clone(scriptHeaders), "Origin: "+w.site), {"Sec-Fetch-Site: cross-site", "Origin: https://evil.test"}} {
		resp := b.send(t, http.MethodGet, sessionInfo, "", lines...)
		checkInfoHeaders(t, resp.Header)
		var got map[string]any
		if err := json.Unmarshal(resp.Body, &got); err != nil || got["authenticated"] != true || got["user"] != "s120" {
			t.Errorf("got %v, want the session of s120", resp)
		}
		for name := range got {
			if !slices.Contains([]string{
				"authenticated", "user", "claims", "created_at", "idle_expires_in", "max_expires_in", "token_expires_in", "login_url", "logout_url",
			}, name) {
				t.Errorf("got an undocumented member %s", name)
			}
		}
		claims, _ := got["claims"].(map[string]any)
		for _, name := range []string{"nonce", "at_hash", "sid", "jti", "aud"} {
			if _, ok := claims[name]; ok {
				t.Errorf("the answer shows the claim %s", name)
			}
		}
		if found := issuedCanary.Find(resp.Body); found != nil || strings.Contains(string(resp.Body), `"eyJ`) {
			t.Errorf("the answer contains a token: %.12s…", found)
		}
	}
	preflight := b.send(t, http.MethodOptions, sessionInfo, "", "Origin: https://evil.test", "Access-Control-Request-Method: GET", "Sec-Fetch-Site: cross-site")
	if preflight.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("another site may read the answer")
	}
}

// TestS120SessionEndpointWithoutASession: without a session the endpoint names only the login
// URL, and starts no login.
func TestS120SessionEndpointWithoutASession(t *testing.T) {
	w := shared(t)
	b := w.browser()
	resp := b.xhr(t, http.MethodGet, sessionInfo)
	checkInfoHeaders(t, resp.Header)
	var got map[string]any
	if err := json.Unmarshal(resp.Body, &got); err != nil || resp.Status != http.StatusOK || got["authenticated"] != false || len(got) != 2 || got["login_url"] != login {
		t.Errorf("got %v, want only authenticated and login_url", resp)
	}
	if len(b.logins()) > 0 {
		t.Error("the endpoint started a login")
	}
}

// TestS120PollingIsNotUse: a request to the session endpoint does not count as use of the
// session.
func TestS120PollingIsNotUse(t *testing.T) {
	w := shared(t)
	v := &variant{name: "polled", options: "idle_timeout 5s"}
	w.addVariants(t, v)
	b := w.browser()
	v.login(t, b, "u")
	eventually(t, "end of a session that is only polled", func() bool {
		u, err := url.Parse(v.url + sessionInfo)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b.xhr(t, http.MethodGet, u.String()).Body), `"authenticated":false`)
	})
}

// checkInfoHeaders checks the headers of an answer of the session endpoint.
func checkInfoHeaders(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": "", "Set-Cookie": "",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
}
