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
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// fullScenes selects the full size of the scenes, which takes many minutes.
var fullScenes = os.Getenv("FULL") == "1"

// longestWait is the longest Retry-After for a request with an expired token.
const longestWait = 60 * time.Second

// A scene is one Caddy with many sessions at one authorization server, which the test can disconnect. Caddy has a second
// site, with an authorization server that always works.
type scene struct {
	main, neighbour *sceneSite
	caddy           *caddyserver.Server
	http            *http.Client
	concurrency     int       // of requests
	recoveredAt     time.Time // end of the failure
}

// A sceneSite is a site with its authorization server and its sessions.
type sceneSite struct {
	url   string
	as    *fakeas.Server
	op    *op.Server
	link  *faultproxy.Proxy // to the authorization server
	users []*sceneUser
}

// A sceneUser is a user with a session and its cookie.
type sceneUser struct {
	site         *sceneSite
	name, cookie string
	former       string // the first access token of the session
	expired      bool   // the first access token has expired
}

// A scenePlan describes a scene.
type scenePlan struct {
	sessions int
	// expired reports whether a session's access token has expired at the start of Caddy. The tokens of other sessions are
	// due for a refresh and live half an hour longer.
	expired     func(i int) bool
	neighbours  int // sessions at the other site
	concurrency int // of requests
}

func everySession(int) bool  { return true }
func everySecond(i int) bool { return i%2 == 0 }

// newTokenPath is a path of the main site with refresh_if_older 0s: each request needs a new token.
const newTokenPath = "/new"

// formerEmail is the e-mail address in the sessions until their refresh.
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
	// At its end, Caddy waits some seconds for new connections without a request.
	t.Cleanup(s.http.CloseIdleConnections)
	s.main, s.neighbour = newSceneSite(t), newSceneSite(t)
	key := seal.NewKey()
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

// fill writes the sessions into the store, like logins.
func (s *scene) fill(t *testing.T, file string, key seal.Key, plan scenePlan) {
	t.Helper()
	store, err := bolt.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ring, err := seal.NewKeyRing(key)
	if err != nil {
		t.Fatal(err)
	}
	vault := keeper.NewVault(store)
	fill := func(site *sceneSite, n int, expired func(int) bool) {
		k, err := keeper.New(keeper.Config{
			Vault: vault, Site: seal.NewSite(ring, site.op.Issuer, site.op.ClientID, ""), Refresher: noRefresher{},
		})
		if err != nil {
			t.Fatal(err)
		}
		site.users = make([]*sceneUser, n)
		err = forEach(256, n, func(i int) (err error) {
			site.users[i], err = site.newUser(t.Context(), k, i, expired(i))
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

// noRefresher is the refresher of a keeper that only creates sessions.
type noRefresher struct{ keeper.Refresher }

func (s *sceneSite) newUser(ctx context.Context, k *keeper.Keeper, i int, expired bool) (*sceneUser, error) {
	u := &sceneUser{site: s, name: fmt.Sprintf("user-%d", i), expired: expired}
	login, err := s.as.LogIn(s.op.ClientID, u.name, "openid")
	if err != nil {
		return nil, err
	}
	u.former = login.AccessToken
	// A token is due for a refresh after 85 % of its lifetime at the latest. The rest is longer than any scene.
	now, rest := time.Now(), 30*time.Minute
	tokens := keeper.Tokens{
		AccessToken: login.AccessToken, RefreshToken: login.RefreshToken, IDToken: login.IDToken,
		Obtained: now.Add(-9 * rest), Expires: now.Add(rest),
	}
	if expired {
		tokens.Expires = now.Add(-time.Second)
	}
	secret, _, err := k.Create(ctx, keeper.Identity{
		Subject: u.name, SID: login.SID, Claims: fmt.Appendf(nil, `{"email":%q}`, formerEmail),
	}, tokens)
	u.cookie = sessionCookie + "=" + secret.Cookie()
	return u, err
}

// forEach calls do for 0 to n-1, with at most limit calls in parallel, and returns the first errors.
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

// served is the content of the app's answer: the user and the token of its request.
type served struct{ user, email, token string }

// errLater is the error for an answer 503 with Retry-After.
var errLater = errors.New("later")

// ask sends a fetch. The app must answer with the right user and a valid token. If the access token has expired, 503 with a
// Retry-After up to longestWait is accepted, too: the error is then errLater.
func (s *scene) ask(ctx context.Context, u *sceneUser, path string) (served, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.site.url+path, nil)
	if err != nil {
		return served{}, err
	}
	req.Header = http.Header{
		"Cookie": {u.cookie}, "Accept": {"*/*"}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
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
		return u.check(string(body))
	case resp.StatusCode == http.StatusServiceUnavailable && (u.expired || path == newTokenPath):
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 1 || time.Duration(after)*time.Second > longestWait {
			return served{}, fmt.Errorf("%s got Retry-After %q, want 1 to %v", u.name, resp.Header.Get("Retry-After"), longestWait)
		}
		return served{}, errLater
	}
	return served{}, fmt.Errorf("%s (expired token: %t) got %s, want the app's answer: %.300s", u.name, u.expired, resp.Status, body)
}

// check returns an error unless the app's request had the right user and a valid token.
func (u *sceneUser) check(body string) (served, error) {
	var v served
	if _, err := fmt.Sscan(body, &v.user, &v.email, &v.token); err != nil {
		return v, fmt.Errorf("reading the answer to %s: %w", u.name, err)
	}
	owner, ok := u.site.as.ValidAccessToken(v.token)
	switch {
	case v.user != u.name:
		return v, fmt.Errorf("%s was served as %s", u.name, v.user)
	case !ok || owner != u.name:
		return v, fmt.Errorf("%s was served with a token of %q, valid: %t", u.name, owner, ok)
	case u.expired && v.token == u.former:
		return v, fmt.Errorf("%s was served with an expired token", u.name)
	}
	return v, nil
}
