package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/faultproxy"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
)

// fullScenes asks for the full numbers of sessions and the full times, which take many minutes.
var fullScenes = os.Getenv("FULL") == "1"

// longestWait is what a request with an expired token may be told to wait, at most.
const longestWait = 60 * time.Second

// A scene is one Caddy with many sessions at one authorization server, which can be cut off. Caddy has a second site, at
// another authorization server that is always well.
type scene struct {
	main, neighbour *sceneSite
	caddy           *caddyserver.Server
	http            *http.Client
	// atOnce is how many requests are under way at a time.
	concurrency int
	// well is when the authorization server had recovered.
	recoveredAt time.Time
}

// A sceneSite is a site with its authorization server and its sessions.
type sceneSite struct {
	url   string
	as    *fakeas.Server
	op    *op.Server
	link  *faultproxy.Proxy // to the authorization server
	users []*sceneUser
}

// A sceneUser is a session, as its browser has it.
type sceneUser struct {
	site         *sceneSite
	name, cookie string
	former       string // the access token that the session began with
	expired      bool   // whether that token has expired
}

// A scenePlan says what a scene is made of.
type scenePlan struct {
	sessions int
	// expired says whether the access token of a session has expired when Caddy starts. Those of the others are due
	// for a refresh, and good for half an hour more.
	expired func(i int) bool
	// neighbours is the number of sessions at the other site.
	neighbours  int
	concurrency int
}

func everySession(int) bool  { return true }
func everySecond(i int) bool { return i%2 == 0 }

// newTokenPath is a path of the first site whose requests want a token that is new.
const newTokenPath = "/new"

// formerEmail is what the sessions say of their users until they are refreshed.
const formerEmail = "before.the.refresh@example.test"

func startScene(t *testing.T, plan scenePlan) *scene {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Header.Get("X-User"), r.Header.Get("X-Email"), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}))
	t.Cleanup(app.Close)
	s := &scene{
		concurrency: plan.concurrency,
		http:        &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: plan.concurrency, DisableCompression: true}},
	}
	// Caddy waits some seconds for connections on which nothing has come yet.
	t.Cleanup(s.http.CloseIdleConnections)
	s.main, s.neighbour = newSceneSite(t), newSceneSite(t)
	key := session.NewKey()
	file := filepath.Join(t.TempDir(), "sessions.db")
	s.fill(t, file, key, plan)
	config := caddyserver.Config{Env: append(secret(s.main.op), "SESSION_KEY="+key.Encode())}
	for _, site := range []*sceneSite{s.main, s.neighbour} {
		options := "key {env.SESSION_KEY}\nstore bolt {\npath " + file + "\n}\n"
		if site == s.main {
			options += "refresh_timeout 10s\nrefresh_if_older " + newTokenPath + " 0s\n"
		}
		config.Sites += fmt.Sprintf("%s {\nbind 127.0.0.1\n%sreverse_proxy %s {\nheader_up X-User {http.auth.user.id}\nheader_up X-Email {http.auth.user.email}\n}\n}\n",
			site.url, protect(site.op, options), app.Listener.Addr())
	}
	s.caddy = caddyserver.Start(t, config)
	return s
}

func newSceneSite(t *testing.T) *sceneSite {
	t.Helper()
	site := &sceneSite{url: newSite(t)}
	site.as, site.op = startFake(t, site.url+"/oauth2/callback")
	setAccessTokenLifetime(site.as, longLife)
	site.link = faultproxy.Start(t, strings.TrimPrefix(site.as.URL, "http://"))
	site.as.URL = "http://" + site.link.Addr()
	site.op.Issuer = site.as.URL
	return site
}

// fill writes the sessions into the store, as logins would.
func (s *scene) fill(t *testing.T, file string, key session.Key, plan scenePlan) {
	t.Helper()
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ring, err := session.NewKeyRing(key)
	if err != nil {
		t.Fatal(err)
	}
	vault := session.NewVault(store)
	fill := func(site *sceneSite, n int, expired func(int) bool) {
		keeper, err := session.NewKeeper(session.Config{
			Vault: vault, Site: session.NewSite(ring, site.op.Issuer, site.op.ClientID, ""), Refresher: noRefresher{},
		})
		if err != nil {
			t.Fatal(err)
		}
		site.users = make([]*sceneUser, n)
		err = forEach(256, n, func(i int) (err error) {
			site.users[i], err = site.newUser(t.Context(), keeper, i, expired(i))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	fill(s.main, plan.sessions, plan.expired)
	fill(s.neighbour, plan.neighbours, everySession)
	if err := vault.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// noRefresher is for a keeper that creates sessions and nothing else.
type noRefresher struct{ session.Refresher }

func (s *sceneSite) newUser(ctx context.Context, keeper *session.Keeper, i int, expired bool) (*sceneUser, error) {
	g := &sceneUser{site: s, name: fmt.Sprintf("user-%d", i), expired: expired}
	login, err := s.as.LogIn(s.op.ClientID, g.name, "openid")
	if err != nil {
		return nil, err
	}
	g.former = login.AccessToken
	// A token is due after 85 % of its life, at the latest. What is left of it is longer than any scene takes.
	now, rest := time.Now(), 30*time.Minute
	tokens := session.Tokens{
		AccessToken: login.AccessToken, RefreshToken: login.RefreshToken, IDToken: login.IDToken,
		Obtained: now.Add(-9 * rest), Expires: now.Add(rest),
	}
	if expired {
		tokens.Expires = now.Add(-time.Second)
	}
	secret, _, err := keeper.Create(ctx, session.Identity{
		Subject: g.name, SID: login.SID, Claims: fmt.Appendf(nil, `{"email":%q}`, formerEmail),
	}, tokens)
	g.cookie = sessionCookie + "=" + secret.Cookie()
	return g, err
}

// atOnce calls do for 0 to n-1, at most limit at a time, and returns the first errors.
func forEach(limit, n int, do func(i int) error) error {
	const most = 5
	var (
		mu    sync.Mutex
		errs  []error
		tasks = make(chan int)
		all   sync.WaitGroup
	)
	for range min(limit, n) {
		all.Go(func() {
			for i := range tasks {
				if err := do(i); err != nil {
					mu.Lock()
					errs = append(errs[:min(len(errs), most)], err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		tasks <- i
	}
	close(tasks)
	all.Wait()
	return errors.Join(errs...)
}

// served is what the app saw of a request.
type served struct{ user, email, token string }

// errLater is for a request that is to be repeated.
var errLater = errors.New("later")

// ask sends what a script of the page sends. Either the app answers, to the user's own request with a good token; or the
// access token has expired, and the answer is to come again within a minute: then the error is errLater.
func (s *scene) ask(ctx context.Context, g *sceneUser, path string) (served, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.site.url+path, nil)
	if err != nil {
		return served{}, err
	}
	req.Header = http.Header{
		"Cookie": {g.cookie}, "Accept": {"*/*"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return served{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return served{}, err
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return g.check(string(body))
	case resp.StatusCode == http.StatusServiceUnavailable && (g.expired || path == newTokenPath):
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 1 || time.Duration(after)*time.Second > longestWait {
			return served{}, fmt.Errorf("%s is to come again after %q", g.name, resp.Header.Get("Retry-After"))
		}
		return served{}, errLater
	}
	return served{}, fmt.Errorf("%s, whose token has expired: %v: %s: %.300s", g.name, g.expired, resp.Status, body)
}

// check demands that the app saw the user's own request with a good token.
func (g *sceneUser) check(body string) (served, error) {
	var v served
	if _, err := fmt.Sscan(body, &v.user, &v.email, &v.token); err != nil {
		return v, fmt.Errorf("reading the answer to %s: %w", g.name, err)
	}
	owner, ok := g.site.as.ValidAccessToken(v.token)
	switch {
	case v.user != g.name:
		return v, fmt.Errorf("%s was served as %s", g.name, v.user)
	case !ok || owner != g.name:
		return v, fmt.Errorf("%s was served with a token of %q, good: %v", g.name, owner, ok)
	case g.expired && v.token == g.former:
		return v, fmt.Errorf("%s was served with an expired token", g.name)
	}
	return v, nil
}
