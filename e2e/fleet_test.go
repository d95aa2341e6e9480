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

// fleetSize is the default number of instances.
const fleetSize = 3

// A fleet is several instances of Caddy with one Redis that serve one site, as behind a load balancer without sticky
// sessions. No process listens at the site's address: clients choose an instance for each request.
type fleet struct {
	site  string
	url   *url.URL // of site
	as    *fakeas.Server
	op    *op.Server
	redis *redisserver.Server
	app   *echo.Server
	nodes []*node

	transport *http.Transport // shared by all visitors, like that of a load balancer
}

// A node is one instance of a fleet.
type node struct {
	*caddyserver.Server
	addr    string // host and port
	keyFile string
	config  caddyserver.Config
}

// A fleetPlan describes a fleet.
type fleetPlan struct {
	// keys are the contents of the instances' key files. Default: fleetSize instances with one common key.
	keys []string
	// options are additional lines of the directive.
	options string
	// sites are additional sites of every instance.
	sites string
	// redis is the store. Default: a new one.
	redis *redisserver.Server
}

// A nodePlan describes an instance.
type nodePlan struct {
	key     string // content of the key file
	store   string // arguments of `store redis`
	app     string // host and port
	options string // additional lines of the directive
	sites   string // additional sites
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
		common := newKey()
		for range fleetSize {
			plan.keys = append(plan.keys, common)
		}
	}
	for _, key := range plan.keys {
		f.addNode(t, nodePlan{key: key, store: f.redis.URL(), app: f.app.Addr(), options: plan.options, sites: plan.sites})
	}
	// At its end, Caddy waits some seconds for new connections without a request.
	t.Cleanup(f.transport.CloseIdleConnections)
	return f
}

// addNode starts an instance.
func (f *fleet) addNode(t *testing.T, plan nodePlan) *node {
	t.Helper()
	n := &node{addr: fmt.Sprintf("localhost:%d", proc.FreePort(t)), keyFile: filepath.Join(t.TempDir(), "key")}
	n.setKeys(t, plan.key)
	options := fmt.Sprintf("base_url %s\nstore redis %s\nkey {file.%s}\n%s", f.site, plan.store, n.keyFile, plan.options)
	upstream := "reverse_proxy " + plan.app + " {\n\theader_up X-User {http.auth.user.id}\n}\n"
	n.config = caddyserver.Config{Env: secret(f.op), Sites: block("http://"+n.addr, protect(f.op, options)+upstream) + plan.sites}
	n.Server = caddyserver.Start(t, n.config)
	f.nodes = append(f.nodes, n)
	return n
}

// newKey returns a random encoded key.
func newKey() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand.Read ends the program instead
	return base64.RawURLEncoding.EncodeToString(key[:])
}

// setKeys replaces the key file atomically.
func (n *node) setKeys(t testing.TB, keys ...string) {
	t.Helper()
	temp := n.keyFile + ".new"
	err := os.WriteFile(temp, []byte(strings.Join(keys, "\n")+"\n"), 0o600)
	if err := errors.Join(err, os.Rename(temp, n.keyFile)); err != nil {
		t.Fatal(err)
	}
}

// setExpiresIn sets expires_in of token answers from now on. At the server, access tokens live for longLife, so that
// checkAnswer can look up their user at any time.
func (f *fleet) setExpiresIn(lifetime time.Duration) {
	f.as.Set(func(k *fakeas.Knobs) {
		edit := fakeas.Edit{Set: map[string]any{"expires_in": lifetime.Seconds()}}
		k.LoginAnswer, k.RefreshAnswer = edit, edit
	})
}

// A visitor is a user with one browser.
type visitor struct {
	fleet *fleet
	name  string // also the subject
	// roundRobin sends each request to the next instance. at[i] sends all requests to instance i. They share their cookies.
	roundRobin *client.Client
	at         []*client.Client

	mu     sync.Mutex
	tokens map[string]bool // the tokens of all answers
}

// visitor returns a new visitor. The first request of roundRobin goes to the instance with number first.
func (f *fleet) visitor(name string, first int) *visitor {
	v := &visitor{fleet: f, name: name, roundRobin: client.New("", ""), tokens: map[string]bool{}}
	var requests atomic.Int64
	v.roundRobin.Through(f.transport, f.url.Host, func() string {
		turn := first + int(requests.Add(1)) - 1
		return f.nodes[turn%len(f.nodes)].addr
	})
	for _, n := range f.nodes {
		pinned := v.roundRobin.Twin()
		pinned.Through(f.transport, f.url.Host, func() string { return n.addr })
		v.at = append(v.at, pinned)
	}
	return v
}

// loginVisitor returns a visitor after a login. Only the given instance has read the session so far.
func (f *fleet) loginVisitor(t testing.TB, name string, instance int) *visitor {
	t.Helper()
	// Of three instances, the next one starts the login, the one after it finishes the login, and the given one reads the
	// session.
	v := f.visitor(name, instance+1)
	if err := v.login(t.Context(), "/wanted"); err != nil {
		t.Fatal(err)
	}
	return v
}

// login logs in over the instances in turn: one starts the login, the next finishes it, and the third serves the page.
func (v *visitor) login(ctx context.Context, path string) error {
	return v.loginBy(ctx, v.roundRobin, path)
}

func (v *visitor) loginBy(ctx context.Context, c *client.Client, path string) error {
	query := url.Values{"login_hint": {v.name}, "return_to": {path}}
	page, err := c.Login(ctx, v.fleet.site+"/oauth2/login?"+query.Encode())
	if err != nil {
		return fmt.Errorf("logging %s in: %w", v.name, err)
	}
	if page.URL.String() != v.fleet.site+path {
		return fmt.Errorf("logging %s in: got %v, want the page at %s", v.name, page, path)
	}
	_, err = v.checkAnswer(page)
	return err
}

// ask sends a fetch to one instance and checks the answer. It returns the token in the app's request. It repeats the fetch
// while the answer is 503 with a Retry-After, as a client does.
func (v *visitor) ask(ctx context.Context, instance int) (token string, err error) {
	for try := 1; ; try++ {
		resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
		if err != nil {
			return "", err
		}
		if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || try == maxAsks {
			return v.checkAnswer(resp)
		}
	}
}

// maxAsks limits how often ask sends a request. A call of Redis may exceed its time-out while the machine is busy.
const maxAsks = 5

// checkAnswer checks that the answer is the app's, with this visitor's user and a valid token of this user. It returns the
// token.
func (v *visitor) checkAnswer(resp *client.Response) (token string, err error) {
	token = bearer(resp)
	if token == "" {
		return "", fmt.Errorf("%s got %v, want the app's answer", v.name, resp)
	}
	if err := v.checkUser(resp); err != nil {
		return "", err
	}
	if owner, ok := v.fleet.as.ValidAccessToken(token); !ok || owner != v.name {
		return "", fmt.Errorf("%s was served with a token of %q, valid: %t", v.name, owner, ok)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tokens[token] = true
	return token, nil
}

// checkUser checks that the app's request had this visitor's user.
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

// askAll checks that the session works at each running instance, and returns the tokens.
func (v *visitor) askAll(t testing.TB) []string {
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

// awaitNewToken asks an instance until it has another token than the former, and returns it. It checks each answer.
func (v *visitor) awaitNewToken(t testing.TB, instance int, former string) string {
	t.Helper()
	var token string
	eventually(t, fmt.Sprintf("new token at instance %d", instance), func() bool {
		var err error
		if token, err = v.ask(t.Context(), instance); err != nil {
			t.Fatalf("before the new token at instance %d: %v", instance, err)
		}
		return token != former
	})
	return token
}

// errorLog returns the module's log entries of level error. It does not parse the log, which is large.
func (n *node) errorLog(t testing.TB) []string {
	t.Helper()
	var entries []string
	for line := range strings.Lines(n.Log(t)) {
		if strings.Contains(line, `"level":"error"`) && strings.Contains(line, `"logger":"http.handlers.oauth_session`) {
			entries = append(entries, line)
		}
	}
	return entries
}

// wantNoErrorLog fails the test if an instance has logged an error.
func (f *fleet) wantNoErrorLog(t testing.TB) {
	t.Helper()
	for i, n := range f.nodes {
		for _, entry := range n.errorLog(t) {
			t.Errorf("instance %d logged an error: %s", i, entry)
		}
	}
}

// awaitRefreshes waits until the authorization server has got a total of n refresh requests, answered or not.
func (f *fleet) awaitRefreshes(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("refresh request %d", n), func() bool {
		return f.as.Stats().Grants[fakeas.GrantRefresh] >= n
	})
}

// wantNoTokenReuse fails the test if a code or refresh token was redeemed or sent twice, or if the number of logins differs.
func (f *fleet) wantNoTokenReuse(t testing.TB, logins int) {
	t.Helper()
	stats := f.as.Stats()
	if len(stats.RedeemedTwice) != 0 || stats.Reuses != 0 || stats.CodeReuses != 0 {
		t.Errorf("got tokens redeemed twice %v, %d reuses of refresh tokens and %d of codes, want none",
			stats.RedeemedTwice, stats.Reuses, stats.CodeReuses)
	}
	if n := stats.Requests[fakeas.EndpointAuthorize]; n != logins {
		t.Errorf("got %d logins, want %d", n, logins)
	}
}
