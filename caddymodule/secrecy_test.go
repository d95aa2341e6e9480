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

// wantNoSecrets looks for what must not show up in a text: whatever the
// authorization server has issued, the client secret, and cookies.
func (w *world) wantNoSecrets(what, text string, cookies ...string) {
	w.t.Helper()
	for _, s := range slices.Concat(w.as.Secrets(), cookies, []string{testSecret}) {
		if at := strings.Index(text, s); s != "" && at >= 0 {
			w.t.Errorf("%s holds %.10s…: …%s", what, s, text[max(0, at-300):min(len(text), at+50)])
		}
	}
}

// The log at its most talkative holds no secret of a whole life of a session:
// login, refusal, refresh, logout. Callback and logout have no access line.
func TestLogHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	t.Setenv("KEY", seal.NewKey().Encode())
	w.load(site("key {env.KEY}", "log_append token {http.request.header.Authorization}\nlog_append cookie {http.request.header.X-Nothing}"))
	b := newBrowser(t, w.origin)
	callback := b.startLogin("/wanted?x=1")
	cookies := []string{}
	keep := func() { cookies = slices.AppendSeq(cookies, maps.Values(b.cookies)) }
	keep()
	if a := b.visit(callback); a.status != http.StatusOK {
		t.Fatalf("login: status %d:\n%s", a.status, a.body)
	}
	keep()
	token := b.open("/").echo(t).Bearer()
	if token == "" {
		t.Fatal("no token reached the app")
	}
	// Once more, though the code is spent; and one that was never good.
	b.open(callback)
	b.open("/oauth2/callback?state=x&code=CODE_" + strings.Repeat("0", 64))
	a := b.send(http.MethodPost, "/oauth2/logout", navigation.Clone())
	logout := a.header.Get("Location")
	if a.status != http.StatusSeeOther || !strings.Contains(logout, "id_token_hint") {
		t.Fatalf("logout answered %d, Location %q", a.status, logout)
	}
	b.open("/last") // all lines before this one are there
	captured.wait(t, "handled request", `"uri":"/last"`)

	w.wantNoSecrets("the log", captured.String(), cookies...)
	u, err := url.Parse(callback)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"CODE_", "id_token_hint", os.Getenv("KEY"), "/oauth2/callback?"} {
		if found := captured.lines(text); found != nil {
			t.Errorf("%s is in the log: %s", text, found[0])
		}
	}
	if found := captured.lines("handled request", `"uri":"`+u.Path); found != nil {
		t.Errorf("the callback has an access line: %s", found[0])
	}
	if found := captured.lines("handled request", `"uri":"/oauth2/logout"`); found != nil {
		t.Errorf("the logout has an access line: %s", found[0])
	}
	// The appended field is there, and empty.
	if found := captured.lines("handled request", `"uri":"/wanted?x=1"`, `"status":200`, `"token":""`); found == nil {
		t.Error("no access line with an empty field token")
	}
}

// A login that fails is where a code may still be good, so the lines about
// errors are watched too.
func TestErrorLogHoldsNoCode(t *testing.T) {
	for name, errorRoutes := range map[string]string{"own pages": "", "handle_errors": "handle_errors {\nrespond \"sorry\"\n}"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(site("", errorRoutes))
			b := newBrowser(t, w.origin)
			callback := b.startLogin("/")
			w.as.Fail(fakeas.Unavailable().At(fakeas.EndpointToken).Repeat(10))
			if a := b.open(callback); a.status != http.StatusServiceUnavailable {
				t.Fatalf("callback: status %d, want 503", a.status)
			}
			b.open("/last")
			captured.wait(t, "handled request", `"uri":"/last"`)
			w.wantNoSecrets("the log", captured.String())
		})
	}
}

// `servers { trace }` logs every handler as it is configured.
func TestTraceLogHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	key := seal.NewKey().Encode()
	w.load("{\nservers {\ntrace\n}\n}\n" + strings.Replace(site("key "+key, ""), "{env.SECRET}", testSecret, 1))
	newBrowser(t, w.origin).login("/")
	line := captured.wait(t, `"logger":"http.log.trace"`, `"msg":"oauth_session"`)
	if !strings.Contains(line, `"client_id":"app"`) {
		t.Errorf("the trace does not tell which handler it is about: %s", line)
	}
	w.wantNoSecrets("the log", captured.String())
	if found := captured.lines(key); found != nil {
		t.Errorf("the key is in the log: %s", found[0])
	}
}

// Secrets that are given as placeholders are neither in what `caddy adapt`
// prints, which is also what /config/ and autosave.json hold, nor in any file.
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
		t.Fatalf("reading the data directory: %d files, %v", len(all)-1, err)
	}
	for what, content := range all {
		w.wantNoSecrets(what, content, slices.Collect(maps.Values(b.cookies))...)
		if strings.Contains(content, os.Getenv("KEY")) {
			t.Errorf("%s holds the key", what)
		}
	}
	if !strings.Contains(all["the configuration"], "{file."+file+"}") {
		t.Error("the placeholder is not in the configuration")
	}
}

// A secret in plain text in the configuration works, and the log warns of
// it without repeating it.
func TestPlainTextSecretIsWarnedAbout(t *testing.T) {
	w := newWorld(t)
	w.load(strings.Replace(site("", ""), "{env.SECRET}", testSecret, 1))
	newBrowser(t, w.origin).login("/")
	if captured.lines(`"level":"warn"`, "client_secret is written in plain text in the configuration") == nil {
		t.Error("no warning")
	}
	w.wantNoSecrets("the log", captured.String())
	captured.reset()
	w.load(site("", ""))
	if found := captured.lines("is written in plain text"); found != nil {
		t.Errorf("a placeholder is warned of: %s", found)
	}
}
