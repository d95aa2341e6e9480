package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A callback is what the authorization server sends a browser back with, and the cookies of that browser.
type callback struct {
	fleet   *fleet
	name    string
	url     string
	cookies string
}

// callback begins a login at the first instance and stops before its end.
func (f *fleet) callback(t testing.TB, name, path string) *callback {
	t.Helper()
	v := f.visitor(name, 0)
	start := navigate(t, v.at[0], f.site+path)
	if start.Location() == nil {
		t.Fatalf("the login of %s: %v", name, start)
	}
	back := navigate(t, v.at[0], start.Location().String())
	if back.Location() == nil || !strings.HasPrefix(back.Location().String(), f.site+"/oauth2/callback?") {
		t.Fatalf("the authorization server answered %v", back)
	}
	cb := &callback{fleet: f, name: name, url: back.Location().String()}
	for _, c := range v.at[0].Jar.Cookies(f.url) {
		cb.cookies += c.Name + "=" + c.Value + "; "
	}
	return cb
}

// send sends it to an instance, from a connection and with cookies of its own.
func (cb *callback) send(ctx context.Context, instance int, rawURL string) (*client.Response, error) {
	c := cb.fleet.visitor(cb.name, 0).at[instance]
	c.Header = http.Header{"Cookie": {strings.TrimSuffix(cb.cookies, "; ")}}
	return c.NavigateFrom(ctx, cb.fleet.as.URL, rawURL)
}

// sessionIn returns the value of the session's cookie that an answer sets.
func sessionIn(resp *client.Response) string {
	for _, line := range resp.Header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == sessionCookie {
			return c.Value
		}
	}
	return ""
}

// TestCallbackIsRedeemedOnceOverInstances sends one callback twenty times at once to two instances. The server revokes what it
// granted for a code that comes twice.
func TestCallbackIsRedeemedOnceOverInstances(t *testing.T) {
	t.Parallel()
	one := newKey()
	f := startFleet(t, fleetPlan{keys: []string{one, one}})
	cb := f.callback(t, "alice", "/oauth2/login?login_hint=alice&return_to=/wanted")
	f.as.Fail(fakeas.Slow(300 * time.Millisecond).For(fakeas.GrantCode).Repeat(-1))
	answers := make([]*client.Response, 20)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = cb.send(t.Context(), i%2, cb.url); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	secret := sessionIn(answers[0])
	for i, resp := range answers {
		if resp.Status != http.StatusSeeOther || resp.Location().String() != f.site+"/wanted" || sessionIn(resp) != secret || secret == "" {
			t.Errorf("callback %d: %v to %v", i, resp, resp.Location())
		}
	}
	v := f.visitor("alice", 0)
	for i, c := range v.at {
		c.Header = http.Header{"Cookie": {sessionCookie + "=" + secret}}
		if _, err := v.ask(t.Context(), i); err != nil {
			t.Errorf("the session at instance %d: %v", i, err)
		}
	}
	if resp, err := v.at[1].Fetch(t.Context(), http.MethodPost, f.site+"/oauth2/session/refresh", ""); err != nil || resp.Status != http.StatusOK {
		t.Errorf("refreshing the session: %v, %v", resp, err)
	}
	if stats := f.as.Stats(); stats.Grants[fakeas.GrantCode] != 1 || stats.CodeReuses != 0 {
		t.Errorf("%d codes were sent, %d of them twice", stats.Grants[fakeas.GrantCode], stats.CodeReuses)
	}
	if n := sessionKeys(t, f); n != 2 {
		t.Errorf("the store holds %d items, want the session and the result of the login", n)
	}
	f.quiet(t)
}

// TestMadeUpCodesOverInstances sends one attempt back with three hundred codes that nobody issued.
func TestMadeUpCodesOverInstances(t *testing.T) {
	t.Parallel()
	one := newKey()
	f := startFleet(t, fleetPlan{keys: []string{one, one}})
	cb := f.callback(t, "alice", "/wanted")
	u, err := url.Parse(cb.url)
	if err != nil {
		t.Fatal(err)
	}
	before := sessionKeys(t, f)
	var all sync.WaitGroup
	for worker := range 10 {
		all.Go(func() {
			for i := range 30 {
				made := *u
				q := u.Query()
				q.Set("code", fmt.Sprintf("made-up-%d-%d", worker, i))
				made.RawQuery = q.Encode()
				resp, err := cb.send(t.Context(), i%2, made.String())
				if err != nil || resp.Status != http.StatusFound || sessionIn(resp) != "" {
					t.Errorf("%v, %v", resp, err)
				}
			}
		})
	}
	all.Wait()
	if n := f.as.Stats().Grants[fakeas.GrantCode]; n < 1 || n > len(f.nodes) {
		t.Errorf("%d token requests at %d instances", n, len(f.nodes))
	}
	if after := sessionKeys(t, f); after != before {
		t.Errorf("the store held %d items and holds %d", before, after)
	}
}

// sessionKeys counts the items in Redis.
func sessionKeys(t testing.TB, f *fleet) int {
	t.Helper()
	return len(f.redis.Keys(t, "oauth_session:{*}"))
}

// goesOn is a page that moves on by itself after some seconds.
var goesOn = regexp.MustCompile(`<meta http-equiv="refresh" content="[1-9][0-9]*;url=(/oauth2/login\?return_to=[^"&]*)">`)

// TestLoginsWhileTheStoreIsFrozen: none begins, and one that has begun goes on later without having sent its code.
func TestLoginsWhileTheStoreIsFrozen(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{keys: []string{newKey()}})
	cb := f.callback(t, "alice", "/wanted")
	authorized := f.as.Stats().Requests[fakeas.EndpointAuthorize]
	f.redis.Pause(t)
	for _, path := range []string{"/wanted", "/oauth2/login?return_to=/wanted"} {
		resp := navigate(t, f.visitor("alice", 0).at[0], f.site+path)
		if resp.Status != http.StatusServiceUnavailable || resp.Header["Set-Cookie"] != nil || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %v with %v", path, resp, resp.Header)
		}
	}
	resp, err := cb.send(t.Context(), 0, cb.url)
	if err != nil {
		t.Fatal(err)
	}
	next := goesOn.FindSubmatch(resp.Body)
	if resp.Status != http.StatusServiceUnavailable || next == nil || strings.Count(string(resp.Body), `http-equiv="refresh"`) != 1 {
		t.Fatalf("the callback: %v: %s", resp, resp.Body)
	}
	f.redis.Resume(t)
	stats := f.as.Stats()
	if n := stats.Requests[fakeas.EndpointAuthorize] - authorized; n != 0 || stats.Grants[fakeas.GrantCode] != 0 {
		t.Errorf("%d logins began, and %d codes were sent", n, stats.Grants[fakeas.GrantCode])
	}
	eventually(t, "login after the outage", func() bool {
		page, err := f.visitor("alice", 0).at[0].Visit(t.Context(), f.site+string(next[1]))
		if err != nil {
			t.Fatal(err)
		}
		return page.Status == http.StatusOK && page.URL.String() == f.site+"/wanted"
	})
}
