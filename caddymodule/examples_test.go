package caddymodule

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Each example is formatted and valid with only the secrets in the environment. Its
// first comment names the redirect URI to register.
func TestExamplesAreValid(t *testing.T) {
	files, err := filepath.Glob("../examples/*.Caddyfile")
	if err != nil || len(files) < 9 {
		t.Fatalf("got %d examples, error %v; want at least 9", len(files), err)
	}
	for _, file := range append(files, "../Caddyfile.example") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "# ") {
				t.Error("got no comment at the beginning")
			}
			intro, _, _ := strings.Cut(string(text), " {\n")
			if !strings.Contains(intro, "https://app.example.com/oauth2/callback") {
				t.Error("got no redirect URI in the first comment")
			}
			if string(caddyfile.Format(text)) != string(text) {
				t.Error("got another text than `caddy fmt` writes")
			}
			validateExample(t, text)
		})
	}
}

// docs/apps.md shows the examples of its apps, without their comments.
func TestAppsPageShowsItsExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/apps.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"jupyterlab", "streamlit", "node-red"} {
		text, err := os.ReadFile("../examples/" + app + ".Caddyfile")
		if err != nil {
			t.Fatal(err)
		}
		var shown strings.Builder
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				shown.WriteString(line)
			}
		}
		if !strings.Contains(string(page), "```caddyfile\n"+shown.String()+"```") {
			t.Errorf("docs/apps.md lacks the example %s:\n%s", app, shown.String())
		}
	}
}

func validateExample(t *testing.T, text []byte) {
	t.Helper()
	data := isolate(t)
	for _, name := range []string{"SITE", "ISSUER", "CLIENT_ID", "APP"} {
		unsetenv(t, name)
	}
	t.Setenv("CLIENT_SECRET", testSecret)
	t.Setenv("SESSION_KEY", seal.NewKey().Encode())
	t.Setenv("REDIS_PASSWORD", "unused")
	text, credentials := withCredentialFiles(t, text)
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("adapting: got error %v, warnings %v", err, warnings)
	}
	if strings.Contains(string(out), testSecret) {
		t.Error("got the secret in the configuration")
	}
	if err := validateIn(t, out, data); err != nil {
		t.Errorf("validating: got error %v", err)
	}
	// Without the secret or the file the configuration is invalid.
	if strings.Contains(string(text), "{env.CLIENT_SECRET}") {
		unsetenv(t, "CLIENT_SECRET")
		if err := validateIn(t, out, data); err == nil || !strings.Contains(err.Error(), "client_secret") {
			t.Errorf("without the secret: got error %v, want one for client_secret", err)
		}
	}
	for _, option := range []string{"client_key", "client_assertion"} {
		if !strings.Contains(string(out), `"`+option+`"`) {
			continue
		}
		if err := os.RemoveAll(credentials); err != nil {
			t.Fatal(err)
		}
		if err := validateIn(t, out, data); err == nil || !strings.Contains(err.Error(), option+" ") || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("without the file: got error %v, want one for %s", err, option)
		}
	}
}

// validateIn does the same as `caddy validate`, with Caddy's data in a directory.
func validateIn(t *testing.T, config []byte, data string) error {
	t.Helper()
	c := new(caddy.Config)
	if err := json.Unmarshal(config, c); err != nil {
		t.Fatal(err)
	}
	c.StorageRaw = caddyconfig.JSON(map[string]string{"module": "file_system", "root": data}, nil)
	return caddy.Validate(c)
}

// withCredentialFiles makes the files with credentials that an example names, in a
// directory of the test.
func withCredentialFiles(t *testing.T, text []byte) (example []byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"ES256"}`)) + "." + part([]byte(`{"exp":9999999999}`)) + "." + part([]byte("signature"))
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", filepath.Join(dir, "azure"))
	writeSettled(t, filepath.Join(dir, "azure"), token)
	for path, content := range map[string]string{
		"/etc/caddy/client.pem": newClientKeys(t, 1).pem(t), "/var/run/secrets/login/token": token, "/run/spiffe/login.jwt": token,
	} {
		file := filepath.Join(dir, filepath.Base(path))
		writeSettled(t, file, content)
		text = bytes.ReplaceAll(text, []byte(path), []byte(file))
	}
	return text, dir
}

// unsetenv unsets a variable until the test ends.
func unsetenv(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "")
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

// Caddyfile.example works without changes. It sends the user's name to the app, and
// removes codes, states and nonces from the access log.
func TestCaddyfileExampleWorks(t *testing.T) {
	w := newWorld(t)
	t.Setenv("SITE", w.origin)
	t.Setenv("CLIENT_ID", "app")
	t.Setenv("CLIENT_SECRET", testSecret)
	content, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	// The test reads the log.
	text := strings.Replace(string(content[strings.Index(string(content), "\n{\n")+1:]), "\tlog {\n", "\tlog {\n\toutput capture\n", 1)
	w.load(text)
	b := newBrowser(t, w.origin)
	first := b.open("/page?code=CODE_IN_URL&x=1")
	location := first.header.Get("Location")
	b.cookies = map[string]string{}
	r := b.login("/page").echo(t)
	if r.Bearer() == "" || strings.Join(r.Values("X-User"), "|") != "alice" || strings.Join(r.Values("X-Email"), "|") != "alice@example.test" {
		t.Errorf("got headers %v at the app, want a token, X-User and X-Email", r.Headers)
	}
	if a := b.open("/last"); a.status != http.StatusOK {
		t.Fatalf("got status %d, want 200", a.status)
	}
	captured.wait(t, "handled request", `"uri":"/last"`)
	line := captured.wait(t, "handled request", `"uri":"/page?code=REDACTED&x=1"`)
	if !strings.Contains(line, "state=REDACTED") || !strings.Contains(line, "nonce=REDACTED") {
		t.Errorf("got log line %s, want state and nonce redacted", line)
	}
	_, state, _ := strings.Cut(location, "state=")
	state, _, _ = strings.Cut(state, "&")
	for _, text := range []string{"CODE_IN_URL", state} {
		if found := captured.lines(text); text == "" || found != nil {
			t.Errorf("got %q in the log: %v", text, found)
		}
	}
	w.wantNoSecrets("the log", captured.String())
}
