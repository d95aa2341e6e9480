package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A checkRig runs `caddy oauth-session check` on a configuration of its own.
type checkRig struct {
	as     *fakeas.Server
	site   string
	secret string
}

// run returns the exit code and the output, with the parsed report if there is one.
func (r *checkRig) run(t *testing.T, caddyfile string, args ...string) (code int, out string, report checkReport) {
	t.Helper()
	binary, err := caddyserver.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, append([]string{"oauth-session", "check", "--config", file}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "SECRET="+r.secret)
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), r.secret) {
		t.Errorf("the output has the client secret:\n%s", text)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, `{"ok"`) {
			if err := json.Unmarshal([]byte(line), &report); err != nil {
				t.Fatal(err)
			}
		}
	}
	return cmd.ProcessState.ExitCode(), string(text), report
}

type checkReport struct {
	OK    bool
	Sites []struct {
		Site         string
		RedirectURIs []string `json:"redirect_uris"`
		Findings     []struct {
			Code, Severity, Option, File, Detail string
			Lines                                []int
		}
	}
}

// TestCheckFindsMistakes: each row makes one mistake. The report names its code, its option and the line of it.
func TestCheckFindsMistakes(t *testing.T) {
	t.Parallel()
	redis := redisserver.Start(t, redisserver.Options{})
	for name, tc := range map[string]struct {
		options string // in place of those of a login; $ISSUER is the server
		server  func(*fakeas.Server)
		code    string // "": nothing is found
		option  string
		line    int
		exit    int
		text    string
	}{
		"all is well":       {exit: 0},
		"redis works":       {options: "store redis " + redis.URL() + "\nkey AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n", exit: 0},
		"issuer with slash": {options: "issuer $ISSUER/\n", code: "metadata", option: "issuer", line: 4, exit: 2, text: "both must be identical"},
		"issuer down":       {options: "issuer http://127.0.0.1:9\n", code: "metadata", option: "issuer", line: 4, exit: 2, text: "connection refused"},
		"wrong secret":      {options: "client_secret wrong-secret\n", code: "credentials", option: "client_secret", line: 6, exit: 2, text: "invalid_client"},
		"redirect URI":      {options: "base_url https://elsewhere.example\n", code: "redirect_uri", option: "client_id", line: 5, exit: 0, text: "https://elsewhere.example/oauth2/callback"},
		"scope refused": {server: func(s *fakeas.Server) {
			s.Fail(fakeas.OAuthError("invalid_scope").At(fakeas.EndpointAuthorize).Repeat(-1))
		}, code: "redirect_uri", option: "client_id", line: 5, exit: 0, text: "invalid_scope"},
		"without openid":     {options: "scope profile\n", code: "scope", option: "scope", line: 7, exit: 0, text: "openid"},
		"redis down":         {options: "store redis redis://127.0.0.1:9\nkey AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n", code: "store", option: "store", line: 8, exit: 2, text: "connection refused"},
		"clock":              {server: func(s *fakeas.Server) { s.Set(func(k *fakeas.Knobs) { k.ClockOffset = 600e9 }) }, code: "clock", option: "issuer", line: 4, exit: 0, text: "ahead of the clock"},
		"keys of other kind": {options: "id_token_signed_response_alg EdDSA\n", code: "algorithm", option: "id_token_signed_response_alg", line: 8, exit: 2, text: "EdDSA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &checkRig{site: newSite(t), secret: "check-secret-canary"}
			r.as = fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{ID: "app", Secret: r.secret, RedirectURIs: []string{r.site + "/oauth2/callback"}}}})
			if tc.server != nil {
				tc.server(r.as)
			}
			lines := []string{"issuer $ISSUER", "client_id app", "client_secret {env.SECRET}", "scope openid"}
			for option := range strings.Lines(tc.options) {
				option = strings.TrimSpace(option)
				name, _, _ := strings.Cut(option, " ")
				if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+" ") }); i >= 0 {
					lines[i] = option
				} else {
					lines = append(lines, option)
				}
			}
			text := r.site + " {\n\t# a comment\n\toauth_session {\n\t\t" + strings.Join(lines, "\n\t\t") + "\n\t}\n\trespond ok\n}\n"
			text = strings.ReplaceAll(text, "$ISSUER", r.as.URL)
			code, out, report := r.run(t, text, "--json")
			if code != tc.exit || len(report.Sites) != 1 || report.OK != (tc.exit == 0) {
				t.Fatalf("got exit code %d, want %d:\n%s", code, tc.exit, out)
			}
			found := report.Sites[0].Findings
			if tc.code == "" {
				if len(found) > 0 {
					t.Errorf("got %+v, want nothing", found)
				}
				return
			}
			if len(found) != 1 {
				t.Fatalf("got %+v, want one finding", found)
			}
			f := found[0]
			if f.Code != tc.code || f.Option != tc.option || !slices.Equal(f.Lines, []int{tc.line}) || !strings.Contains(f.Detail, tc.text) ||
				f.Severity != map[int]string{0: "warning", 2: "error"}[tc.exit] {
				t.Errorf("got %+v, want %s at %s in line %d with %q", f, tc.code, tc.option, tc.line, tc.text)
			}
			if _, people, _ := r.run(t, text); !strings.Contains(people, "Caddyfile:") || !strings.Contains(people, tc.text) {
				t.Errorf("got the report\n%s\nwant file, line and %q in it", people, tc.text)
			}
		})
	}
}

// TestCheckNamesConfigurationErrors: the exit code is 1, and the error names file and line.
func TestCheckNamesConfigurationErrors(t *testing.T) {
	t.Parallel()
	r := &checkRig{site: newSite(t), secret: "check-secret-canary"}
	code, out, _ := r.run(t, r.site+" {\n\toauth_session {\n\t\tisuer https://login.example\n\t}\n}\n")
	if code != 1 || !strings.Contains(out, "Caddyfile:3") || !strings.Contains(out, "issuer") {
		t.Errorf("got exit code %d, want 1 with file, line and the right word:\n%s", code, out)
	}
	if code, out, _ := r.run(t, r.site+" {\n\trespond ok\n}\n"); code != 1 || !strings.Contains(out, "no oauth_session directive") {
		t.Errorf("without the directive: got exit code %d:\n%s", code, out)
	}
}

// TestCheckBesideARunningCaddy: the store that the running Caddy uses is no finding, and its sessions go on.
func TestCheckBesideARunningCaddy(t *testing.T) {
	t.Parallel()
	r := &checkRig{site: newSite(t)}
	as, server := startFake(t, r.site+"/oauth2/callback")
	r.as, r.secret = as, server.ClientSecret
	app := block(r.site, protect(server, "store bolt {\npath {$STORE}\n}")+"respond {http.auth.user.id}\n")
	store := filepath.Join(t.TempDir(), "store", "sessions.db")
	app = strings.ReplaceAll(app, "{$STORE}", store)
	caddy := caddyserver.Start(t, caddyserver.Config{Env: secret(server), Sites: app})
	name, value, _ := strings.Cut(secret(server)[0], "=")
	app = strings.ReplaceAll(app, "{env."+name+"}", value)
	code, out, report := (&checkRig{secret: "not-in-the-output"}).run(t, app, "--json")
	if code != 0 || !report.OK || len(report.Sites[0].Findings) > 0 {
		t.Errorf("got exit code %d, want 0 without findings:\n%s", code, out)
	}
	if status, _ := caddy.Admin(t, http.MethodGet, "/oauth_session/ready", ""); status != http.StatusOK {
		t.Errorf("the running Caddy: got status %d, want 200", status)
	}
	if _, err := os.Stat(store); err != nil {
		t.Error(err)
	}
}
