package caddymodule

import (
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// wantNoSecrets searches a text for everything that the authorization server has issued,
// the client secret, and cookies.
func (w *world) wantNoSecrets(name, text string, cookies ...string) {
	w.t.Helper()
	for _, s := range slices.Concat(w.as.Secrets(), cookies, []string{testSecret}) {
		if at := strings.Index(text, s); s != "" && at >= 0 {
			w.t.Errorf("got %.10s… in %s: …%s", s, name, text[max(0, at-300):min(len(text), at+50)])
		}
	}
}

// The log at level DEBUG holds no secret of a login, a refused login, a request and a
// logout. Callback and logout have no access log line.
func TestLogHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	t.Setenv("KEY", seal.NewKey().Encode())
	w.load(site("key {env.KEY}", "log_append token {http.request.header.Authorization}\nlog_append cookie {http.request.header.X-Nothing}"))
	b := newBrowser(t, w.origin)
	callback := b.startLogin("/wanted?x=1")
	cookies := []string{}
	recordCookies := func() { cookies = slices.AppendSeq(cookies, maps.Values(b.cookies)) }
	recordCookies()
	if a := b.visit(callback); a.status != http.StatusOK {
		t.Fatalf("login: got status %d, want 200:\n%s", a.status, a.body)
	}
	recordCookies()
	token := b.open("/").echo(t).Bearer()
	if token == "" {
		t.Fatal("got no token at the app")
	}
	// The callback once more with the used code, and with an invalid code.
	b.open(callback)
	b.open("/oauth2/callback?state=x&code=CODE_" + strings.Repeat("0", 64))
	a := b.send(http.MethodPost, "/oauth2/logout", navigation.Clone())
	logout := a.header.Get("Location")
	if a.status != http.StatusSeeOther || !strings.Contains(logout, "id_token_hint") {
		t.Fatalf("logout: got status %d, Location %q; want 303 with id_token_hint", a.status, logout)
	}
	b.open("/last") // its log line follows all others
	captured.wait(t, "handled request", `"uri":"/last"`)

	w.wantNoSecrets("the log", captured.String(), cookies...)
	u, err := url.Parse(callback)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"CODE_", "id_token_hint", os.Getenv("KEY"), "/oauth2/callback?"} {
		if found := captured.lines(text); found != nil {
			t.Errorf("got %s in the log: %s", text, found[0])
		}
	}
	if found := captured.lines("handled request", `"uri":"`+u.Path); found != nil {
		t.Errorf("got an access log line of the callback: %s", found[0])
	}
	if found := captured.lines("handled request", `"uri":"/oauth2/logout"`); found != nil {
		t.Errorf("got an access log line of the logout: %s", found[0])
	}
	// The appended field exists and is empty.
	if found := captured.lines("handled request", `"uri":"/wanted?x=1"`, `"status":200`, `"token":""`); found == nil {
		t.Error("got no access log line with an empty token field")
	}
}

// After a failed login its code may still be valid, so error lines must not show it.
func TestErrorLogHoldsNoCode(t *testing.T) {
	for name, errorRoutes := range map[string]string{"own pages": "", "handle_errors": "handle_errors {\nrespond \"sorry\"\n}"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(site("", errorRoutes))
			b := newBrowser(t, w.origin)
			callback := b.startLogin("/")
			w.as.Fail(fakeas.Unavailable().At(fakeas.EndpointToken).Repeat(10))
			if a := b.open(callback); a.status != http.StatusServiceUnavailable {
				t.Fatalf("callback: got status %d, want 503", a.status)
			}
			b.open("/last")
			captured.wait(t, "handled request", `"uri":"/last"`)
			w.wantNoSecrets("the log", captured.String())
		})
	}
}

// `servers { trace }` logs the configuration of each handler.
func TestTraceLogHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	key := seal.NewKey().Encode()
	w.load("{\nservers {\ntrace\n}\n}\n" + strings.Replace(site("key "+key, ""), "{env.SECRET}", testSecret, 1))
	newBrowser(t, w.origin).login("/")
	line := captured.wait(t, `"logger":"http.log.trace"`, `"msg":"oauth_session"`)
	if !strings.Contains(line, `"client_id":"app"`) {
		t.Errorf("got trace %s, want the client_id", line)
	}
	w.wantNoSecrets("the log", captured.String())
	if found := captured.lines(key); found != nil {
		t.Errorf("got the key in the log: %s", found[0])
	}
}

// Neither the JSON configuration (`caddy adapt`, /config/, autosave.json) nor any file
// holds the value of a placeholder.
func TestPlaceholderSecretsAreNotStored(t *testing.T) {
	w := newWorld(t)
	t.Setenv("KEY", seal.NewKey().Encode())
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(testSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {file." + file + "}\nkey {env.KEY}\n}\nreverse_proxy {$APP}\n}"
	w.load(text)
	b := newBrowser(t, w.origin)
	b.login("/")
	all := map[string]string{"the configuration": string(w.config(text))}
	err := filepath.WalkDir(filepath.Dir(w.data), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all[path] = string(content)
		return err
	})
	if err != nil || len(all) < 2 {
		t.Fatalf("reading the data directory: got %d files, error %v", len(all)-1, err)
	}
	for name, content := range all {
		w.wantNoSecrets(name, content, slices.Collect(maps.Values(b.cookies))...)
		if strings.Contains(content, os.Getenv("KEY")) {
			t.Errorf("got the key in %s", name)
		}
	}
	if !strings.Contains(all["the configuration"], "{file."+file+"}") {
		t.Error("got no placeholder in the configuration")
	}
}

// A secret in plain text works. The log warns about it and does not contain it.
func TestPlainTextSecretIsWarnedAbout(t *testing.T) {
	w := newWorld(t)
	w.load(strings.Replace(site("", ""), "{env.SECRET}", testSecret, 1))
	newBrowser(t, w.origin).login("/")
	if captured.lines(`"level":"warn"`, "client_secret is written in plain text in the configuration") == nil {
		t.Error("got no warning")
	}
	w.wantNoSecrets("the log", captured.String())
	captured.reset()
	w.load(site("", ""))
	if found := captured.lines("is written in plain text"); found != nil {
		t.Errorf("got a warning about a placeholder: %s", found)
	}
}
