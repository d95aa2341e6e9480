package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// fleetSize is the number of instances wherever the test does not demand another.
const fleetSize = 3

// A fleet is several Caddys with one Redis that serve one site, as behind a balancer without stickiness. Nothing listens at
// the site's own address: it is the clients that choose an instance for each request.
type fleet struct {
	site  string
	url   *url.URL // the same
	as    *fakeas.Server
	op    *op.Server
	redis *redisserver.Server
	app   *echo.Server
	nodes []*node

	transport *http.Transport // of all visitors, as a balancer has one for all
}

// A node is one instance of a fleet.
type node struct {
	*caddyserver.Server
	addr    string // where it listens
	keyFile string
	config  caddyserver.Config
}

// A fleetPlan says what a fleet is made of.
type fleetPlan struct {
	// keys are the lines of each instance's key file. Default: fleetSize instances with one key.
	keys []string
	// options are more lines for the directive.
	options string
	// more are further sites of every instance.
	more string
	// redis is the store, if the test has begun one.
	redis *redisserver.Server
}

func startFleet(t *testing.T, plan fleetPlan) *fleet {
	t.Helper()
	f := &fleet{
		site: newSite(t), redis: plan.redis, app: echo.Start(t, echo.Options{}),
		transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	var err error
	if f.url, err = url.Parse(f.site); err != nil {
		t.Fatal(err)
	}
	f.as, f.op = startFake(t, f.site+"/oauth2/callback")
	f.as.Set(func(k *fakeas.Knobs) {
		k.AccessTokenLifetime = longLife
	})
	if f.redis == nil {
		f.redis = redisserver.Start(t, redisserver.Options{})
	}
	if plan.keys == nil {
		one := newKey()
		for range fleetSize {
			plan.keys = append(plan.keys, one)
		}
	}
	for _, key := range plan.keys {
		f.start(t, plan, key)
	}
	// Caddy waits some seconds for connections on which nothing has come yet.
	t.Cleanup(f.transport.CloseIdleConnections)
	return f
}

func (f *fleet) start(t *testing.T, plan fleetPlan, key string) {
	t.Helper()
	n := &node{addr: fmt.Sprintf("localhost:%d", proc.FreePort(t)), keyFile: filepath.Join(t.TempDir(), "key")}
	n.setKeys(t, key)
	options := fmt.Sprintf("base_url %s\nstore redis %s\nkey {file.%s}\n%s", f.site, f.redis.URL(), n.keyFile, plan.options)
	app := "reverse_proxy " + f.app.Addr() + " {\n\theader_up X-User {http.auth.user.id}\n}\n"
	n.config = caddyserver.Config{Env: secret(f.op), Sites: block("http://"+n.addr, protect(f.op, options)+app) + plan.more}
	n.Server = caddyserver.Start(t, n.config)
	f.nodes = append(f.nodes, n)
}

// newKey draws a key.
func newKey() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand.Read ends the program instead
	return base64.RawURLEncoding.EncodeToString(key[:])
}

// setKeys replaces the key file in one step.
func (n *node) setKeys(t testing.TB, keys ...string) {
	t.Helper()
	temp := n.keyFile + ".new"
	err := os.WriteFile(temp, []byte(strings.Join(keys, "\n")+"\n"), 0o600)
	if err := errors.Join(err, os.Rename(temp, n.keyFile)); err != nil {
		t.Fatal(err)
	}
}

// tell changes what the server says of the life of the access tokens it issues from now on. They really live for long, so
// that whose they are can be asked at any time.
func (f *fleet) tell(life time.Duration) {
	f.as.Set(func(k *fakeas.Knobs) {
		edit := fakeas.Edit{Set: map[string]any{"expires_in": life.Seconds()}}
		k.LoginAnswer, k.RefreshAnswer = edit, edit
	})
}

// A visitor is a user with one browser.
type visitor struct {
	fleet *fleet
	name  string // also the subject
	// round sends each request to the next instance, at[i] all of them to that one. The cookies are the same.
	round *client.Client
	at    []*client.Client

	mu   sync.Mutex
	seen map[string]bool // the tokens of all answers
}

// visitor returns one whose first request goes to the instance with number first.
func (f *fleet) visitor(name string, first int) *visitor {
	v := &visitor{fleet: f, name: name, round: client.New("", ""), seen: map[string]bool{}}
	var requests atomic.Int64
	v.round.Through(f.transport, f.url.Host, func() string {
		turn := first + int(requests.Add(1)) - 1
		return f.nodes[turn%len(f.nodes)].addr
	})
	for _, n := range f.nodes {
		one := v.round.Twin()
		one.Through(f.transport, f.url.Host, func() string { return n.addr })
		v.at = append(v.at, one)
	}
	return v
}

// welcome returns a visitor who has logged in, and whose session the instance with the given number alone has read.
func (f *fleet) welcome(t testing.TB, name string, instance int) *visitor {
	t.Helper()
	v := f.visitor(name, instance+1) // begun at the next, finished at the one after that: with three, used at the first
	if err := v.login(t.Context(), "/wanted"); err != nil {
		t.Fatal(err)
	}
	return v
}

// login goes round the instances: begun at one, finished at the next, used at the third.
func (v *visitor) login(ctx context.Context, wanted string) error {
	return v.loginBy(ctx, v.round, wanted)
}

func (v *visitor) loginBy(ctx context.Context, c *client.Client, wanted string) error {
	query := url.Values{"login_hint": {v.name}, "return_to": {wanted}}
	page, err := c.Login(ctx, v.fleet.site+"/oauth2/login?"+query.Encode())
	if err != nil {
		return fmt.Errorf("logging %s in: %w", v.name, err)
	}
	if page.URL.String() != v.fleet.site+wanted {
		return fmt.Errorf("the login of %s for %s ended with %v", v.name, wanted, page)
	}
	_, err = v.own(page)
	return err
}

// ask sends what a script sends to one instance. The answer must be the user's own.
func (v *visitor) ask(ctx context.Context, instance int) (token string, err error) {
	resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
	if err != nil {
		return "", err
	}
	return v.own(resp)
}

// own demands that the app answered, and took the request for this user's, and returns the token that it got.
func (v *visitor) own(resp *client.Response) (token string, err error) {
	token = bearer(resp)
	if token == "" {
		return "", fmt.Errorf("the answer to %s is not the app's: %v", v.name, resp)
	}
	if err := v.checkUser(resp); err != nil {
		return "", err
	}
	if owner, ok := v.fleet.as.ValidAccessToken(token); !ok || owner != v.name {
		return "", fmt.Errorf("%s was served with a token of %q, good: %v", v.name, owner, ok)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen[token] = true
	return token, nil
}

// checkUser demands that the app took the request for this user's.
func (v *visitor) checkUser(resp *client.Response) error {
	var seen echo.Request
	if err := json.Unmarshal(resp.Body, &seen); err != nil {
		return fmt.Errorf("reading the answer to %s: %w", v.name, err)
	}
	if users := seen.Values("X-User"); len(users) != 1 || users[0] != v.name {
		return fmt.Errorf("%s was served as %q", v.name, users)
	}
	return nil
}

// everywhere demands that the session works at every instance that runs, and returns the tokens.
func (v *visitor) everywhere(t testing.TB) []string {
	t.Helper()
	var tokens []string
	for i, n := range v.fleet.nodes {
		if n.Process == nil {
			continue
		}
		token, err := v.ask(t.Context(), i)
		if err != nil {
			t.Errorf("at instance %d: %v", i, err)
		}
		tokens = append(tokens, token)
	}
	return tokens
}

// awaitNew asks an instance until it has another token than the former, and returns that. Every answer must be good.
func (v *visitor) awaitNew(t testing.TB, instance int, former string) string {
	t.Helper()
	var token string
	eventually(t, fmt.Sprintf("new token at instance %d", instance), func() bool {
		var err error
		if token, err = v.ask(t.Context(), instance); err != nil {
			t.Fatalf("while waiting for a new token at instance %d: %v", instance, err)
		}
		return token != former
	})
	return token
}

// complaints returns the log entries of the module that are errors. Logs are large, so they are not parsed.
func (n *node) complaints(t testing.TB) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(n.Log(t)) {
		if strings.Contains(line, `"level":"error"`) && strings.Contains(line, `"logger":"http.handlers.oauth_session`) {
			found = append(found, line)
		}
	}
	return found
}

// quiet demands that no instance complained.
func (f *fleet) quiet(t testing.TB) {
	t.Helper()
	for i, n := range f.nodes {
		for _, complaint := range n.complaints(t) {
			t.Errorf("instance %d complains: %s", i, complaint)
		}
	}
}

// awaitRefreshes waits until the authorization server has got n refresh requests in all, answered or not.
func (f *fleet) awaitRefreshes(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("refresh request number %d", n), func() bool {
		return f.as.Stats().Grants[fakeas.GrantRefresh] >= n
	})
}

// unspoiled demands that no refresh token was exchanged twice or came back spent, and that there were that many logins.
func (f *fleet) unspoiled(t testing.TB, logins int) {
	t.Helper()
	stats := f.as.Stats()
	if len(stats.RedeemedTwice) != 0 || stats.Reuses != 0 || stats.CodeReuses != 0 {
		t.Errorf("redeemed twice: %v; refresh tokens that came back spent: %d, codes: %d", stats.RedeemedTwice, stats.Reuses, stats.CodeReuses)
	}
	if n := stats.Requests[fakeas.EndpointAuthorize]; n != logins {
		t.Errorf("got %d logins, want %d", n, logins)
	}
}
