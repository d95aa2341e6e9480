package security

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// linesLoggedDuring returns the lines that an instance logs while f runs.
func (in *instance) linesLoggedDuring(t *testing.T, f func()) []string {
	t.Helper()
	name := filepath.Join(in.dir(), "caddy.log")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f()
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(after[len(before):]), "\n"), "\n")
}

// TestS115LogsHoldNoSecret: with the debug log and the access log on, the whole life of a
// session leaves none of its secrets in the log. This test searches for the names of
// secrets in URLs and forms; the leak scan searches for the values.
func TestS115LogsHoldNoSecret(t *testing.T) {
	w := shared(t)
	lines := w.instances[0].linesLoggedDuring(t, func() {
		w.announceLifetime(2)
		b := w.browser()
		b.login(t, "/s115?x=1")
		before := w.refreshes()
		eventually(t, "refresh", func() bool { b.checkSession(t); return w.refreshes() > before })
		b.xhr(t, http.MethodGet, sessionInfo)
		b.xhr(t, http.MethodPost, refresh)
		b.nav(t, callback+"?"+url.Values{"code": {canary("CODE_", 64)}, "state": {"stale"}}.Encode())
		b.send(t, http.MethodPost, callback, url.Values{"code": {canary("CODE_", 64)}, "state": {"x"}}.Encode(), "Content-Type: application/x-www-form-urlencoded")
		token, err := w.idp.LogoutToken(fakeas.Logout{ClientID: clientID, Subject: "unknown"})
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{"logout_token": {token}}.Encode()
		for range 2 { // the second one is a replay and is refused
			b.send(t, http.MethodPost, backchannel, form, "Content-Type: application/x-www-form-urlencoded")
		}
		if resp, err := postLogout(t.Context(), b, w.site); err != nil || resp.Status != http.StatusSeeOther {
			t.Errorf("logout: %v", err)
		}
		w.idp.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantCode).Repeat(-1))
		if _, err := w.browser().Visit(t.Context(), w.site+"/refused"); err != nil {
			t.Error(err)
		}
	})
	all := strings.Join(lines, "\n")
	if !strings.Contains(all, `"uri":"/s115?x=1"`) || !strings.Contains(all, `"level":"debug"`) {
		t.Fatal("the log is not the debug log with the access log")
	}
	for _, line := range lines {
		var entry struct{ Request struct{ URI string } }
		// The log may show the state in a Location header: without the login cookie it is
		// useless.
		if json.Unmarshal([]byte(line), &entry) == nil && strings.Contains(entry.Request.URI, "state=") {
			t.Errorf("the log contains the URL of a callback: %s", line)
		}
	}
	for _, name := range []string{
		"code=", "logout_token", "id_token", "refresh_token=", "access_token", "code_verifier", "client_secret=",
	} {
		if i := strings.Index(all, name); i >= 0 {
			t.Errorf("the log contains %q: …%s…", name, all[max(0, i-200):min(len(all), i+100)])
		}
	}
	if found := issuedCanary.FindString(all); found != "" {
		t.Errorf("the log contains %.12s…", found)
	}
}

// TestS116AdminEndpointShowsNoSecret: Caddy's admin endpoint shows no secret that is
// configured with a placeholder. The site itself does not serve the admin endpoint.
func TestS116AdminEndpointShowsNoSecret(t *testing.T) {
	w := shared(t)
	w.browser().login(t, "/")
	in := w.instances[0]
	n := newSecretFinder(w.secrets())
	shown := map[string]string{}
	for _, path := range []string{
		"/config/", "/config/apps/http/servers", "/config/apps/oauth_session", "/config/apps/http/servers/srv0/routes", "/debug/vars", "/debug/pprof/",
		"/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/metrics", "/reverse_proxy/upstreams", "/oauth_session/", "/oauth_session/ready",
	} {
		_, shown[path] = in.Admin(t, http.MethodGet, path, "")
	}
	var err error
	if shown["caddy adapt"], err = in.Command(t, "adapt", "--config", filepath.Join(in.dir(), "Caddyfile"), "--adapter", "caddyfile"); err != nil {
		t.Fatal(err)
	}
	for place, text := range shown {
		for _, f := range n.find(place, []byte(text)) {
			t.Errorf("leak: %v", f)
		}
	}
	if !strings.Contains(shown["/config/"], "{env.CLIENT_SECRET}") || !strings.Contains(shown["caddy adapt"], "oauth_session") {
		t.Error("the texts are not the configuration")
	}
	// Control: the same search finds a secret that is present.
	if found := n.find("control", []byte(shown["/config/"]+w.clientSecret)); len(found) == 0 {
		t.Error("the search did not find the client secret")
	}
	for _, path := range []string{"/oauth_session/", "/oauth_session/ready", "/config/", "/metrics", "/debug/vars"} {
		w.checkRefused(t, w.browser().send(t, http.MethodGet, path, "", scriptHeaders...))
	}
	for _, path := range []string{"/admin", "/sessions", "/revoke", "/ready", "/metrics", "/list"} {
		if resp := w.browser().send(t, http.MethodGet, prefix+path, "", scriptHeaders...); resp.Status != http.StatusNotFound {
			t.Errorf("%s: got %v, want 404", path, resp)
		}
	}
}

// TestS117MetricLabelsAreBounded: the number of metric series does not grow with users and
// paths.
func TestS117MetricLabelsAreBounded(t *testing.T) {
	w := shared(t)
	var running sync.WaitGroup
	n := amount(1000, 10_000)
	for worker := range 4 {
		running.Go(func() {
			b := w.browser()
			if _, err := b.Visit(t.Context(), fmt.Sprintf("%s%s?login_hint=s117-user-%d&return_to=/s117-path", w.site, login, worker)); err != nil {
				t.Error(err)
				return
			}
			for i := range n / 4 {
				if i%100 == 50 {
					b.Jar = new(client.Jar) // continue without a session
				}
				path := fmt.Sprintf("/s117-path-%d-%d", worker, i)
				if i%10 == 0 {
					path = prefix + path
				}
				if _, err := b.trySend(t.Context(), http.MethodGet, path, "", scriptHeaders...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	_, metrics := w.instances[0].Admin(t, http.MethodGet, "/metrics", "")
	if strings.Contains(metrics, "s117") {
		t.Error("the metrics contain a path or a user")
	}
	label := `(result|code|outcome|reason|part|grant_type|operation)="[a-z_]+"|le="[0-9.+Inf]+"|site="[a-z0-9.:-]+"|key_id="[0-9a-f]{16}"|(issuer|store)="[^"]+"`
	allowed := regexp.MustCompile(`^caddy_oauth_session_[a-z_]+\{(` + label + `)(,(` + label + `))*\} [0-9.e+-]+$`)
	series := 0
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, "caddy_oauth_session_") {
			continue
		}
		series++
		if !allowed.MatchString(strings.TrimSpace(line)) {
			t.Errorf("the metric has an unexpected label: %s", line)
		}
	}
	if series == 0 || series > 1000 {
		t.Errorf("got %d series, want 1 to 1000", series)
	}
}

// TestS119LogLinesCannotBeForged: input from outside stays inside one JSON line, and the
// module truncates it.
func TestS119LogLinesCannotBeForged(t *testing.T) {
	w := shared(t)
	forged := "s119\r\n" + `{"level":"error","logger":"forged","msg":"forged"}` + "\n\x1b[31mred\x1b]0;title\x07\u2028\u0085\u202e" + strings.Repeat("A", 5000)
	lines := w.instances[0].linesLoggedDuring(t, func() {
		for _, name := range []string{"error", "error_description", "iss"} {
			b := w.browser()
			q := url.Values{"error": {"access_denied"}, "state": {b.start(t, "/x").Query().Get("state")}}
			q.Set(name, forged)
			b.nav(t, callback+"?"+q.Encode())
		}
		w.rawGet(t, "/s119", append([]string{"User-Agent: s119 \x1b[31m{\"level\":\"error\"}\x7f\x80\xff", "Referer: \x1b]0;x\x07"}, scriptHeaders...)...)
		w.rawGet(t, callback+"?state=%0a%1b%5b31m&code=x", navigationHeaders...)
		falsify := func(claim string) {
			w.idp.Set(func(k *fakeas.Knobs) {
				k.LoginIDToken = fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{claim: forged}}}
			})
		}
		for _, claim := range []string{"iss", "aud", "azp", "nonce"} {
			falsify(claim)
			if _, err := w.browser().Visit(t.Context(), w.site+"/x"); err != nil {
				t.Error(err)
			}
		}
		w.idp.Set(func(k *fakeas.Knobs) { k.LoginIDToken = fakeas.TokenEdit{} })
		body, _ := json.Marshal(map[string]string{"error": forged, "error_description": forged, "error_uri": forged}) // strings always marshal
		w.idp.Fail(fakeas.Answer(http.StatusBadRequest, "application/json", string(body)).Repeat(-1))
		if _, err := w.browser().Visit(t.Context(), w.site+"/x"); err != nil {
			t.Error(err)
		}
		w.idp.ClearFaults()
	})
	seen := false
	for _, line := range lines {
		seen = seen || strings.Contains(line, "s119")
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("got %q, want a line of JSON", line)
			continue
		}
		if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 }) {
			t.Errorf("got a line with control characters: %q", line)
		}
		logger, _ := entry["logger"].(string)
		if logger == "forged" || entry["msg"] == "forged" {
			t.Errorf("got a forged line: %s", line)
		}
		// Caddy's own access log entries are as long as the request.
		if strings.HasPrefix(logger, "http.handlers.oauth_session") && len(line) > 2000 {
			t.Errorf("got a line of %d bytes, want at most 2000", len(line))
		}
	}
	if !seen {
		t.Error("the log contains none of the requests")
	}
}
