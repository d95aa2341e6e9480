package e2e

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// visited is a site with an app for bob at a real authorization server: alice may not use it. The login page asks for
// the user.
type visited struct {
	site      string
	server    *op.Server
	caddy     *caddyserver.Server
	refreshes *refreshCounter

	// startOver leads from the server's login page for the user whom it knows to the one for any user. Nil: it is the same.
	startOver func(ctx context.Context, browser *client.Client, page *client.Response) (*client.Response, error)
}

// startVisited starts Caddy for a server whose client is registered for the site.
func startVisited(t *testing.T, site string, s *op.Server, options string) *visited {
	t.Helper()
	v := &visited{site: site, server: s, refreshes: countRefreshes(t, s)}
	options += "\nrequire email bob@example.test\n" + v.refreshes.option
	app := echo.Start(t, echo.Options{})
	v.caddy = caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, protect(s, options)+
		"reverse_proxy "+app.Addr()+" {\nheader_up X-User {http.auth.user.email}\n}")})
	return v
}

// A refreshCounter counts the requests with each refresh token.
type refreshCounter struct {
	option string // of the directive, with which Caddy sends the requests to the counter

	mu      sync.Mutex
	sent    map[string]int
	refused int
}

// countRefreshes starts a proxy in front of the server's token endpoint.
func countRefreshes(t *testing.T, s *op.Server) *refreshCounter {
	t.Helper()
	metadata := s.DiscoveryURL
	if metadata == "" {
		metadata = strings.TrimSuffix(s.Issuer, "/") + "/.well-known/openid-configuration"
	}
	var endpoints struct {
		Token string `json:"token_endpoint"`
	}
	answer := navigate(t, client.New("", ""), metadata)
	if err := json.Unmarshal(answer.Body, &endpoints); err != nil {
		t.Fatalf("reading the server's metadata: %v in %v", err, answer)
	}
	u, err := url.Parse(endpoints.Token)
	if err != nil {
		t.Fatal(err)
	}
	c := &refreshCounter{sent: map[string]int{}}
	proxy := httptest.NewServer(c.before(&url.URL{Scheme: u.Scheme, Host: u.Host}))
	t.Cleanup(proxy.Close)
	c.option = "token_endpoint " + proxy.URL + u.Path
	return c
}

// before returns a proxy to the server, which counts refreshes.
func (c *refreshCounter) before(server *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		form, _ := url.ParseQuery(string(body)) // the server answers a malformed form
		if form.Get("grant_type") == "refresh_token" {
			c.mu.Lock()
			c.sent[form.Get("refresh_token")]++
			c.mu.Unlock()
			w = &statusCounter{ResponseWriter: w, counter: c}
		}
		proxy.ServeHTTP(w, r)
	})
}

type statusCounter struct {
	http.ResponseWriter
	counter *refreshCounter
}

func (s *statusCounter) WriteHeader(status int) {
	if status != http.StatusOK {
		s.counter.mu.Lock()
		s.counter.refused++
		s.counter.mu.Unlock()
	}
	s.ResponseWriter.WriteHeader(status)
}

// want fails the test unless there were at least the given number of refreshes, each with another token, and none refused.
func (c *refreshCounter) want(t *testing.T, least int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.sent {
		if n != 1 {
			t.Errorf("got a refresh token sent %d times, want once", n)
		}
	}
	if len(c.sent) < least || c.refused != 0 {
		t.Errorf("got %d refreshes and %d refusals, want at least %d and none", len(c.sent), c.refused, least)
	}
}

// login logs bob in.
func (v *visited) login(t *testing.T) *client.Client {
	t.Helper()
	c := client.New("bob", v.server.Password)
	v.wantUser(t, v.navigate(t, c, v.site+"/wanted?q=1"), v.site+"/wanted?q=1")
	return c
}

// navigate opens the URL and logs in at the server, if it asks for that.
func (v *visited) navigate(t *testing.T, c *client.Client, rawURL string) *client.Response {
	t.Helper()
	page, err := c.Login(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// wantUser fails the test unless the page is the app's at the URL, for bob.
func (v *visited) wantUser(t *testing.T, page *client.Response, rawURL string) {
	t.Helper()
	wantAppPage(t, page, rawURL)
	var seen echo.Request
	if err := json.Unmarshal(page.Body, &seen); err != nil {
		t.Fatal(err)
	}
	if users := seen.Values("X-User"); len(users) != 1 || users[0] != "bob@example.test" {
		t.Errorf("got the user %q, want bob", users)
	}
}

// wantLoginForm fails the test unless a navigation leads to the server's login form.
func (v *visited) wantLoginForm(t *testing.T, c *client.Client) {
	t.Helper()
	page, err := c.Visit(t.Context(), v.site+"/")
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(page.URL.String(), v.site) || !strings.Contains(string(page.Body), "<form") {
		t.Errorf("navigation after the logout: got %v, want the server's login form", page)
	}
}

var otherAccountLink = regexp.MustCompile(`href="([^"]*)">Use another account<`)

// refused logs alice in, who may not use the app. It returns the page that says so.
func (v *visited) refused(t *testing.T) (*client.Client, *client.Response) {
	t.Helper()
	c := client.New("alice", v.server.Password)
	v.navigate(t, c, v.site+"/wanted?q=1")
	// The server knows alice: another login without a prompt has the same result.
	refused, err := c.Visit(t.Context(), v.site+"/wanted?q=1")
	if err != nil {
		t.Fatal(err)
	}
	if refused.Status != http.StatusForbidden {
		t.Fatalf("got %v, want 403", refused)
	}
	return c, refused
}

// useOtherAccount follows the link to another account.
func (v *visited) useOtherAccount(t *testing.T) {
	c, refused := v.refused(t)
	link := otherAccountLink.FindSubmatch(refused.Body)
	if link == nil {
		t.Fatalf("got %v, want a link to another account", refused)
	}
	to, err := refused.URL.Parse(html.UnescapeString(string(link[1])))
	if err != nil {
		t.Fatal(err)
	}
	page, err := c.Visit(t.Context(), to.String())
	if err == nil && v.startOver != nil {
		page, err = v.startOver(t.Context(), c, page)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.User = "bob"
	if page, err = c.Finish(t.Context(), page, v.site); err != nil {
		t.Fatal(err)
	}
	v.wantUser(t, page, v.site+"/wanted?q=1")
}

// signOutFirst presses the button to sign out on the same page, and then logs in with another account.
func (v *visited) signOutFirst(t *testing.T) {
	c, refused := v.refused(t)
	page, err := c.Submit(t.Context(), refused)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page.Body), "Sign in again") {
		t.Fatalf("got %v, want the page after a logout", page)
	}
	c.User = "bob"
	v.wantUser(t, v.navigate(t, c, v.site+"/wanted?q=1"), v.site+"/wanted?q=1")
}

// logOutAtServer logs bob out on the server's page. His session in another browser stays.
func (v *visited) logOutAtServer(t *testing.T) {
	c, other := v.login(t), v.login(t)
	before := logoutsByServer(t, v.caddy)
	page, err := c.Visit(t.Context(), v.server.SignOutURL)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(page.Body), "<form") { // to confirm
		if _, err = c.Submit(t.Context(), page); err != nil {
			t.Fatal(err)
		}
	}
	awaitSessionEnd(t, v.server, c, v.site)
	awaitLogoutsByServer(t, v.caddy, before+1)
	v.wantLoginForm(t, c)
	if resp := fetch(t, other, v.site+"/"); bearer(resp) == "" {
		t.Errorf("another browser after the logout: got %v, want the app's answer", resp)
	}
}

// logOutHere logs bob out at the app. The server ends its own session, too.
func (v *visited) logOutHere(t *testing.T) {
	c := v.login(t)
	page, err := c.Submit(t.Context(), navigate(t, c, v.site+"/oauth2/logout"))
	if err != nil {
		t.Fatal(err)
	}
	if want := v.site + "/oauth2/logout/callback"; !strings.HasPrefix(page.URL.String(), want) || page.Status != http.StatusOK {
		t.Errorf("got %v, want the page %s", page, want)
	}
	v.wantLoginForm(t, c)
}

// storms is the number of storms of a test.
const storms = 3

// storm logs bob in and sends storms of requests.
func (v *visited) storm(t *testing.T) {
	sendStorms(t, v.login(t), v.site)
	v.refreshes.want(t, storms)
}

// sendStorms sends 200 requests at once whenever the access token has expired. It lives for shortLife.
func sendStorms(t *testing.T, c *client.Client, site string) {
	t.Helper()
	seen := map[string]bool{}
	for n := range storms {
		time.Sleep(shortLife)
		answers := make([]answer, burstSize)
		var done sync.WaitGroup
		for i := range answers {
			done.Go(func() { answers[i] = fetchAnswer(t.Context(), t, c, site+"/api") })
		}
		done.Wait()
		for _, a := range answers {
			if a.status != http.StatusOK || a.token == "" || seen[a.token] {
				t.Fatalf("storm %d: got status %d and token %q, want 200 and a new token", n, a.status, a.token)
			}
		}
		for _, a := range answers {
			seen[a.token] = true
		}
	}
}

// wantNoFailures fails the test if the log has an error of the module.
func (v *visited) wantNoFailures(t *testing.T) {
	t.Helper()
	for _, entry := range v.caddy.Entries(t, "http.handlers.oauth_session") {
		if level := entry["level"]; level == "error" || level == "warn" {
			t.Errorf("got log entry %v, want neither errors nor warnings", entry)
		}
	}
}
