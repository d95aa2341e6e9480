package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A mistake is a row of docs/mistakes.md: something that operators get wrong, or that breaks at a server.
type mistake struct {
	name string
	// options replace those of a login that works. $ISSUER, $REDIS and $SECRET stand for the servers and the secret.
	options string
	// site replaces the site block's address and the directives around the options: %s.
	site string
	// server changes the servers.
	server func(t *testing.T, r *mistakeRig)
	// after is done after a login, which succeeds, and before the next visit.
	after func(t *testing.T, r *mistakeRig)
}

type mistakeRig struct {
	as    *fakeas.Server
	redis *redisserver.Server
	caddy *caddyserver.Server
	app   *echo.Server
	site  string
	dir   string // for files
}

const (
	mistakeSecret = "mistake-secret-canary"
	mistakeKey    = "key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
)

var mistakes = []mistake{
	{name: "wrong client secret", options: "client_secret wrong-secret"},
	{name: "redirect URI not registered", server: func(_ *testing.T, r *mistakeRig) {
		r.as.AddClient(fakeas.Client{ID: "app", Secret: mistakeSecret, RedirectURIs: []string{"https://other.example/oauth2/callback"}})
	}},
	{name: "issuer with a slash too much", options: "issuer $ISSUER/"},
	{name: "issuer down", options: "issuer http://127.0.0.1:9"},
	{name: "issuer has no name in DNS", options: "issuer https://login.invalid"},
	{name: "metadata of another issuer", server: func(_ *testing.T, r *mistakeRig) {
		r.as.Set(func(k *fakeas.Knobs) { k.Metadata.Set = map[string]any{"issuer": "https://other.example"} })
	}},
	{name: "clocks differ by ten minutes", server: func(_ *testing.T, r *mistakeRig) {
		r.as.Set(func(k *fakeas.Knobs) { k.ClockOffset = 600e9 })
	}},
	{name: "plain http", options: "base_url http://app.example.com"},
	{name: "no key with Redis", options: "store redis $REDIS"},
	{name: "Redis down", options: "store redis redis://127.0.0.1:9\n" + mistakeKey},
	{name: "wrong password of Redis", options: "store redis {\nurl $REDIS\npassword wrong\n}\n" + mistakeKey, server: func(t *testing.T, r *mistakeRig) {
		r.redis.Do(t, "CONFIG", "SET", "requirepass", "right")
	}},
	{name: "bolt file damaged", options: "store bolt {\npath $DIR/store/sessions.db\n}", server: func(t *testing.T, r *mistakeRig) {
		err := os.Mkdir(filepath.Join(r.dir, "store"), 0o700)
		if err = errors.Join(err, os.WriteFile(filepath.Join(r.dir, "store", "sessions.db"), []byte("damaged"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "Redis full", options: "store redis $REDIS\n" + mistakeKey, server: func(t *testing.T, r *mistakeRig) {
		r.redis.Do(t, "CONFIG", "SET", "maxmemory", "1")
	}},
	{name: "option misspelled", options: "scpoe openid"},
	{name: "option repeated", options: "scope openid\nscope profile"},
	{name: "word of another proxy", options: "redirect_uri https://app.example.com/callback"},
	{name: "placeholder empty", options: "client_secret {env.NOT_THERE}"},
	{name: "require not met", options: "require groups admins"},
	{name: "scope refused", server: func(_ *testing.T, r *mistakeRig) {
		r.as.Fail(fakeas.OAuthError("invalid_scope").At(fakeas.EndpointAuthorize).Repeat(-1))
	}},
	{name: "no ID token", server: func(_ *testing.T, r *mistakeRig) {
		r.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Omit = []string{"id_token"} })
	}},
	{name: "scope without openid", options: "scope profile"},
	{name: "no refresh token", server: func(_ *testing.T, r *mistakeRig) {
		r.as.Set(func(k *fakeas.Knobs) { k.RefreshTokens = fakeas.RefreshNone })
	}},
	{name: "inside handle_path without path_prefix", site: "handle_path /app/* {\n%s\n}"},
	{name: "upstream down", site: "%s\nreverse_proxy 127.0.0.1:9"},
	{name: "all cookies dropped", site: "request_header -Cookie\nheader >Set-Cookie .* \"\"\n%s"},
	{name: "client secret replaced at the server", after: func(_ *testing.T, r *mistakeRig) {
		r.as.AddClient(fakeas.Client{ID: "app", Secret: "another-secret", RedirectURIs: []string{r.site + "/oauth2/callback"}})
		r.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"expires_in": 0.000001} })
	}},
}

// TestMistakesAreTold makes each mistake, and compares what check, start, log, metrics and page say with docs/mistakes.md.
// UPDATE=1 writes the page.
func TestMistakesAreTold(t *testing.T) {
	t.Parallel()
	rows := make([]string, len(mistakes))
	t.Run("mistakes", func(t *testing.T) {
		for i, m := range mistakes {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				rows[i] = m.play(t)
			})
		}
	})
	page := mistakesHead + strings.Join(rows, "\n") + "\n"
	const file = "../docs/mistakes.md"
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documented := strings.Split(string(text), "\n")
	for _, row := range rows {
		if !slices.Contains(documented, row) {
			t.Errorf("docs/mistakes.md has no row\n%s", row)
		}
	}
}

const mistakesHead = `# Mistakes and what tells them

A test makes each of these mistakes, and writes what the command [check](doctor.md), the [start](preflight.md), the log, the [metrics](metrics.md) and
the user's page say. A dash means that it cannot be seen there. ` + "`…`" + ` stands for an address or a path.

| mistake | check | start | log at a login | metric | page |
|---|---|---|---|---|---|
`

// play makes the mistake and returns its row.
func (m mistake) play(t *testing.T) string {
	r := &mistakeRig{site: newSite(t), dir: t.TempDir(), app: echo.Start(t, echo.Options{}), redis: redisserver.Start(t, redisserver.Options{Args: []string{"--maxmemory-policy", "noeviction"}})}
	r.as = fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{ID: "app", Secret: mistakeSecret, RedirectURIs: []string{r.site + "/oauth2/callback"}}}})
	if m.server != nil {
		m.server(t, r)
	}
	sites := r.sites(m)
	code, out, report := (&checkRig{secret: mistakeSecret}).run(t, sites, "--json")
	if code == 1 {
		return fmt.Sprintf("| %s | %s | does not start: the same | - | - | - |", m.name, r.cell([]string{configurationError(out)}))
	}
	var told []string
	for _, f := range report.Sites[0].Findings {
		told = append(told, fmt.Sprintf("`%s` (%s, option `%s`)", f.Code, f.Severity, f.Option))
	}
	r.caddy = caddyserver.Start(t, caddyserver.Config{Env: []string{"SECRET=" + mistakeSecret}, Sites: sites})
	eventually(t, "checks at start", func() bool {
		metrics := r.metrics(t)
		return strings.Contains(metrics, "caddy_oauth_session_store_up{") && strings.Contains(metrics, "caddy_oauth_session_issuer_up{")
	})
	atStart := r.warnings(t)
	c := client.New("", "")
	visit := func() *client.Response {
		page, err := c.Visit(t.Context(), r.site+"/app/page")
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	if m.after != nil {
		visit()
		m.after(t, r)
		c = client.New("", "")
	}
	before := r.metrics(t)
	page := visit()
	atLogin := slices.DeleteFunc(r.warnings(t), func(w string) bool { return slices.Contains(atStart, w) })
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", m.name, r.cell(told), r.cell(atStart), r.cell(atLogin), r.cell(moved(before, r.metrics(t))), r.page(page))
}

// sites returns the Caddyfile.
func (r *mistakeRig) sites(m mistake) string {
	lines := []string{"issuer $ISSUER", "client_id app", "client_secret {env.SECRET}", "scope openid offline_access", "store memory"}
	repeated := m.name == "option repeated"
	depth := 0
	for option := range strings.SplitSeq(m.options, "\n") {
		name, _, _ := strings.Cut(option, " ")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+" ") })
		if option == "" {
			continue
		}
		if i >= 0 && !repeated && depth == 0 {
			lines = slices.Delete(lines, i, i+1)
		}
		lines = append(lines, option)
		depth += strings.Count(option, "{") - strings.Count(option, "}")
	}
	inner := "oauth_session {\n" + strings.Join(lines, "\n") + "\n}"
	around := m.site
	if around == "" {
		around = "%s"
	}
	body := fmt.Sprintf("route {\n"+around+"\nreverse_proxy "+r.app.Addr()+"\n}", inner)
	text := strings.NewReplacer("$ISSUER", r.as.URL, "$REDIS", r.redis.URL(), "$DIR", r.dir).Replace(block(r.site, body+"\n"))
	return text
}

func (r *mistakeRig) metrics(t *testing.T) string {
	_, metrics := r.caddy.Admin(t, http.MethodGet, "/metrics", "")
	return metrics
}

// warnings returns the messages of warnings and errors, each with its finding or code.
func (r *mistakeRig) warnings(t *testing.T) (all []string) {
	for _, e := range r.caddy.Entries(t, "") {
		logger, _ := e["logger"].(string)
		if e["level"] != "warn" && e["level"] != "error" || !strings.HasPrefix(logger, "http.handlers.oauth_session") && !strings.HasPrefix(logger, "oauth_session") {
			continue
		}
		text, _ := e["msg"].(string)
		if strings.Contains(text, "is written in plain text") || strings.Contains(text, "did not return the keys of other instances") {
			continue // the test's own secret, and a line that comes at any time
		}
		for _, member := range []string{"finding", "code"} {
			if value, ok := e[member].(string); ok {
				text += " (`" + value + "`)"
			}
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// moved returns the series that a visit has changed, apart from durations.
func moved(before, after string) (changed []string) {
	known := map[string]bool{}
	for line := range strings.Lines(before) {
		known[line] = true
	}
	series := regexp.MustCompile(`^caddy_oauth_session_([a-z_]+_total|store_up|issuer_up)\{(?:(?:code|outcome|reason|result|part)="([a-z_]+)",?)?`)
	for line := range strings.Lines(after) {
		if m := series.FindStringSubmatch(line); m != nil && !known[line] {
			text := "`" + m[1]
			if m[2] != "" {
				text += " " + m[2]
			}
			changed = append(changed, text+"`")
		}
	}
	for line := range strings.Lines(after) {
		if strings.HasPrefix(line, "caddy_oauth_session_store_up{") && strings.HasSuffix(line, " 0\n") {
			changed = append(changed, "`store_up` 0")
		}
		if strings.HasPrefix(line, "caddy_oauth_session_issuer_up{") && strings.HasSuffix(line, " 0\n") {
			changed = append(changed, "`issuer_up` 0")
		}
	}
	return changed
}

var pageCode = regexp.MustCompile(`<small>([a-z_]+)</small>`)

// page describes what the user sees at the end.
func (r *mistakeRig) page(resp *client.Response) string {
	switch code := pageCode.FindStringSubmatch(string(resp.Body)); {
	case "http://"+resp.URL.Host == r.as.URL:
		return fmt.Sprintf("that of the authorization server (%d)", resp.Status)
	case code != nil:
		return fmt.Sprintf("`%s` (%d)", code[1], resp.Status)
	case resp.Status == http.StatusOK:
		return "the app's"
	default:
		return fmt.Sprintf("status %d", resp.Status)
	}
}

var variable = regexp.MustCompile(`https?://[^\s"']+|redis://[^\s"']+|\d+\.\d+\.\d+\.\d+(:\d+)?|/tmp/[^\s:,"']+|[A-Za-z]+file:\d+`)

// cell returns the content of a cell. What differs from run to run is replaced.
func (r *mistakeRig) cell(texts []string) string {
	if len(texts) == 0 {
		return "-"
	}
	slices.Sort(texts)
	text := strings.Join(slices.Compact(texts), "; ")
	return strings.ReplaceAll(variable.ReplaceAllString(text, "…"), "|", "\\|")
}

// configurationError returns the error of a configuration from the output of the command.
func configurationError(out string) string {
	for line := range strings.Lines(out) {
		if i := strings.Index(line, "loading the configuration: "); i >= 0 {
			return strings.TrimSpace(strings.Trim(line[i+len("loading the configuration: "):], "\"}\n"))
		}
		if i := strings.Index(line, "the configuration does not load: "); i >= 0 {
			text := line[i+len("the configuration does not load: "):]
			if j := strings.LastIndex(text, "oauth_session"); j >= 0 && strings.Contains(text[j:], ": ") {
				text = text[j:]
			}
			return strings.TrimSpace(strings.Trim(text, "\"}\n"))
		}
	}
	return strings.TrimSpace(out)
}
