package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	bobsPassword = "bobs-password-canary"
	bobsHash     = "$2a$04$JHGBaj1hKsETFjQ/PPnj6OoUDQdPtq.nrHikLWMiMYrRGMRxv9u3K" // bcrypt of bobsPassword
)

// TestUserAndTokenInEverySurrounding combines oauth_session with other directives. Their user is empty, or the user of the
// token in the app's request. It is never another user, and after oauth_session never the literal placeholder.
func TestUserAndTokenInEverySurrounding(t *testing.T) {
	t.Parallel()
	w := newSurroundings(t)
	for i, s := range surroundings {
		t.Run(s.name, func(t *testing.T) {
			for _, v := range s.visits {
				if user, token := w.ask(t, w.sites[i], v); user != v.user || token != v.token {
					t.Errorf("%s at %s: got user %q and token %q, want %q and %q", v.who, v.path, user, token, v.user, v.token)
				}
			}
		})
	}
}

// TestSurroundingsKeepThePromise checks that no expectation of surroundings breaks the promise of the test above, and that
// docs/placement.md shows the same table.
func TestSurroundingsKeepThePromise(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	table.WriteString("| directives | request of | path | user | token |\n|---|---|---|---|---|\n")
	for _, s := range surroundings {
		for _, v := range s.visits {
			for token, owner := range map[string]string{alicesToken: "alice", dorasToken: "dora"} {
				if strings.Contains(v.token, token) && v.user != owner && v.user != empty {
					t.Errorf("%s: got user %s with the token of %s, want %s or no user", s.name, v.user, owner, owner)
				}
			}
			if v.user == literal && !strings.HasSuffix(s.name, tooEarly) {
				t.Errorf("%s: got the literal placeholder, want the user", s.name)
			}
			fmt.Fprintf(&table, "| %s | %s | `%s` | %s | %s |\n", s.name, v.who, v.path, strings.ReplaceAll(v.user, literal, "`"+literal+"`"), v.token)
		}
	}
	page, err := os.ReadFile("../docs/placement.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), table.String()) {
		t.Errorf("docs/placement.md lacks this table:\n%s", &table)
	}
}

// surroundingsRig is one Caddy with a site for each surrounding.
type surroundingsRig struct {
	as    *fakeas.Server
	caddy *caddyserver.Server
	sites []string
	// logEntries is the number of requests to /log so far.
	logEntries int
}

func newSurroundings(t *testing.T) *surroundingsRig {
	t.Helper()
	as, s := startFake(t, "")
	w := &surroundingsRig{as: as}
	outer := fakeas.Client{ID: s.ClientID, Secret: s.ClientSecret}
	inner := fakeas.Client{ID: "inner", Secret: s.ClientSecret}
	replacer := surroundingsReplacer(t, s)
	var sites strings.Builder
	for _, sur := range surroundings {
		site := newSite(t)
		w.sites = append(w.sites, site)
		outer.RedirectURIs = append(outer.RedirectURIs, site+"/oauth2/callback")
		inner.RedirectURIs = append(inner.RedirectURIs, site+"/admin/oauth2/callback")
		sites.WriteString(block(site, replacer.Replace(sur.site)))
	}
	as.AddClient(outer)
	as.AddClient(inner)
	w.caddy = caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: sites.String()})
	return w
}

// surroundingsReplacer starts the servers for the variables of surroundings, and returns a replacer of the variables.
func surroundingsReplacer(t *testing.T, s *op.Server) *strings.Replacer {
	t.Helper()
	app := echo.Start(t, echo.Options{}).Addr()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "index.php"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	for path, user := range map[string]string{"who.txt": "", "alice/who.txt": "alice"} {
		file := filepath.Join(files, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("user=["+user+"]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := "issuer " + s.Issuer + "\nclient_secret {env.CLIENT_SECRET}\n"
	return strings.NewReplacer(
		"$login", login+"client_id "+s.ClientID,
		"$admin", login+"client_id inner\npath_prefix /admin/oauth2\ncookie {\nname __Host-inner\n}\nauthorize_param login_hint dora",
		"$bob", "bob "+bobsHash,
		"$appaddr", app,
		"$app", "reverse_proxy "+app+" {\nheader_up X-User "+literal+"\n}",
		"$text", "respond user=["+literal+"]",
		"$forward", forwardAuthServer(t),
		"$nowhere", fmt.Sprintf("127.0.0.1:%d", proc.FreePort(t)),
		"$fastcgi", fastCGIServer(t),
		"$root", root,
		"$files", files,
	)
}

// forwardAuthServer starts a server for forward_auth that accepts all requests, with the user carol.
func forwardAuthServer(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Remote-User", "carol")
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// fastCGIServer starts a FastCGI server that answers with the user and the token of its environment.
func fastCGIServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fcgi.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "user=[%s] authorization=[%s]", fcgi.ProcessEnv(r)["REMOTE_USER"], r.Header.Get("Authorization"))
		})) // returns once the listener is closed
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

var (
	userInText          = regexp.MustCompile(`user=\[(.*?)\]`)
	authorizationInText = regexp.MustCompile(`authorization=\[(.*?)\]`)
)

// ask sends one request and returns the user and the token that the site's directives and the app got.
func (w *surroundingsRig) ask(t *testing.T, site string, v surroundingVisit) (user, token string) {
	t.Helper()
	c := client.New("", "")
	if strings.Contains(v.who, "bob") {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth("bob", bobsPassword)
		c.Header = r.Header
	}
	for name, prefix := range map[string]string{"alice": "/oauth2", "dora": "/admin/oauth2"} {
		if strings.Contains(v.who, name) {
			if _, err := c.Login(t.Context(), site+prefix+"/login"); err != nil {
				t.Fatal(err)
			}
		}
	}
	var resp *client.Response
	if strings.HasPrefix(v.path, "/page") { // handle_errors serves navigations
		resp = navigate(t, c, site+v.path)
	} else {
		resp = fetch(t, c, site+v.path)
	}
	var seen echo.Request
	text := string(resp.Body) + resp.Header.Get("Location") + resp.Header.Get("X-Seen")
	switch {
	case json.Unmarshal(resp.Body, &seen) == nil && seen.Line != "":
		return userOrEmpty(strings.Join(seen.Values("X-User"), ", ")), w.owner(append(seen.Values("Authorization"), seen.Values("X-Token")...))
	case v.path == "/log":
		text = w.logged(t, site)
	}
	m := userInText.FindStringSubmatch(unescape(text))
	if m == nil {
		return fmt.Sprint("status ", resp.Status), notAsked
	}
	a := authorizationInText.FindStringSubmatch(text)
	switch {
	case a == nil:
		return userOrEmpty(m[1]), notAsked
	case a[1] == "":
		return userOrEmpty(m[1]), noToken
	}
	return userOrEmpty(m[1]), w.owner(a[1:])
}

func userOrEmpty(user string) string {
	if user == "" {
		return empty
	}
	return user
}

func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// owner returns the users of the credentials in the app's request.
func (w *surroundingsRig) owner(values []string) string {
	var owners []string
	for _, value := range values {
		switch user, ok := w.as.ValidAccessToken(strings.TrimPrefix(value, "Bearer ")); {
		case ok:
			owners = append(owners, user+"'s")
		case strings.HasPrefix(value, "Basic "):
			owners = append(owners, bobsPasswordSeen)
		default:
			owners = append(owners, value)
		}
	}
	if owners == nil {
		return noToken
	}
	return strings.Join(owners, ", ")
}

// logged returns the value of log_append for the newest request to /log in the access log.
func (w *surroundingsRig) logged(t *testing.T, site string) (text string) {
	t.Helper()
	w.logEntries++
	eventually(t, "access log entry", func() bool {
		n := 0
		for _, entry := range w.caddy.Entries(t, "http.log.access") {
			request, _ := entry["request"].(map[string]any)
			if request["uri"] == "/log" {
				n++
				seen, _ := entry["seen"].(string)
				text = "user=[" + seen + "]"
			}
		}
		return n == w.logEntries
	})
	return text
}
