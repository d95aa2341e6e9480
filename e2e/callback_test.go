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

// A callback is the authorization response of an unfinished login, with the browser's cookies.
type callback struct {
	fleet   *fleet
	name    string
	url     string
	cookies string
}

// callback starts a login at the first instance and stops before the callback.
func (f *fleet) callback(t testing.TB, name, path string) *callback {
	t.Helper()
	v := f.visitor(name, 0)
	start := navigate(t, v.at[0], f.site+path)
	if start.Location() == nil {
		t.Fatalf("starting the login of %s: got %v, want a redirect", name, start)
	}
	back := navigate(t, v.at[0], start.Location().String())
	if back.Location() == nil || !strings.HasPrefix(back.Location().String(), f.site+"/oauth2/callback?") {
		t.Fatalf("authorization response: got %v, want a redirect to the callback", back)
	}
	cb := &callback{fleet: f, name: name, url: back.Location().String()}
	for _, c := range v.at[0].Jar.Cookies(f.url) {
		cb.cookies += c.Name + "=" + c.Value + "; "
	}
	return cb
}

// send sends the callback with the given URL to an instance. Each call uses a new browser with the cookies.
func (cb *callback) send(ctx context.Context, instance int, rawURL string) (*client.Response, error) {
	c := cb.fleet.visitor(cb.name, 0).at[instance]
	c.Header = http.Header{"Cookie": {strings.TrimSuffix(cb.cookies, "; ")}}
	return c.NavigateFrom(ctx, cb.fleet.as.URL, rawURL)
}

// sessionCookieOf returns the value of the session cookie in an answer, or "".
func sessionCookieOf(resp *client.Response) string {
	for _, line := range resp.Header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == sessionCookie {
			return c.Value
		}
	}
	return ""
}

// TestCallbackIsRedeemedOnceOverInstances sends one callback to two instances twenty times in parallel. If the server got
// the code twice, it would revoke the tokens.
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
	secret := sessionCookieOf(answers[0])
	for i, resp := range answers {
		if resp.Status != http.StatusSeeOther || resp.Location().String() != f.site+"/wanted" || sessionCookieOf(resp) != secret || secret == "" {
			t.Errorf("callback %d: got %v to %v, want the page and the session of the first", i, resp, resp.Location())
		}
	}
	v := f.visitor("alice", 0)
	for i, c := range v.at {
		c.Header = http.Header{"Cookie": {sessionCookie + "=" + secret}}
		if _, err := v.ask(t.Context(), i); err != nil {
			t.Errorf("session at instance %d: %v", i, err)
		}
	}
	if resp, err := v.at[1].Fetch(t.Context(), http.MethodPost, f.site+"/oauth2/session/refresh", ""); err != nil || resp.Status != http.StatusOK {
		t.Errorf("refreshing the session: got %v and error %v, want 200", resp, err)
	}
	if stats := f.as.Stats(); stats.Grants[fakeas.GrantCode] != 1 || stats.CodeReuses != 0 {
		t.Errorf("got %d code requests and %d reuses, want 1 and 0", stats.Grants[fakeas.GrantCode], stats.CodeReuses)
	}
	if n := itemsInRedis(t, f); n != 2 {
		t.Errorf("got %d items in Redis, want the session and the login result", n)
	}
	f.wantNoErrorLog(t)
}

// TestMadeUpCodesOverInstances sends three hundred invalid codes for one login. The instances must not forward all of them.
func TestMadeUpCodesOverInstances(t *testing.T) {
	t.Parallel()
	one := newKey()
	f := startFleet(t, fleetPlan{keys: []string{one, one}})
	cb := f.callback(t, "alice", "/wanted")
	u, err := url.Parse(cb.url)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the checks at start", func() bool { return itemsInRedis(t, f) == 0 })
	var all sync.WaitGroup
	for worker := range 10 {
		all.Go(func() {
			for i := range 30 {
				made := *u
				q := u.Query()
				q.Set("code", fmt.Sprintf("made-up-%d-%d", worker, i))
				made.RawQuery = q.Encode()
				resp, err := cb.send(t.Context(), i%2, made.String())
				if err != nil || resp.Status != http.StatusFound || sessionCookieOf(resp) != "" {
					t.Errorf("made-up code: got %v and error %v, want a redirect without a session", resp, err)
				}
			}
		})
	}
	all.Wait()
	if n := f.as.Stats().Grants[fakeas.GrantCode]; n < 1 || n > len(f.nodes) {
		t.Errorf("got %d token requests, want 1 to %d", n, len(f.nodes))
	}
	if n := itemsInRedis(t, f); n != 0 {
		t.Errorf("got %d items in Redis, want none", n)
	}
}

// itemsInRedis returns the number of the module's items.
func itemsInRedis(t testing.TB, f *fleet) int {
	t.Helper()
	return len(f.redis.Keys(t, "oauth_session:{*}"))
}

// retryPage matches a page that opens the login again after some seconds.
var retryPage = regexp.MustCompile(`<meta http-equiv="refresh" content="[1-9][0-9]*;url=(/oauth2/login\?return_to=[^"&]*)">`)

// TestLoginsWhileTheStoreIsFrozen: no login starts, and a callback does not send its code. Its page retries the login, which
// succeeds after the outage.
func TestLoginsWhileTheStoreIsFrozen(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{keys: []string{newKey()}})
	cb := f.callback(t, "alice", "/wanted")
	authorized := f.as.Stats().Requests[fakeas.EndpointAuthorize]
	f.redis.Pause(t)
	for _, path := range []string{"/wanted", "/oauth2/login?return_to=/wanted"} {
		resp := navigate(t, f.visitor("alice", 0).at[0], f.site+path)
		if resp.Status != http.StatusServiceUnavailable || resp.Header["Set-Cookie"] != nil || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %v with %v, want 503 with Retry-After and no cookie", path, resp, resp.Header)
		}
	}
	resp, err := cb.send(t.Context(), 0, cb.url)
	if err != nil {
		t.Fatal(err)
	}
	retry := retryPage.FindSubmatch(resp.Body)
	if resp.Status != http.StatusServiceUnavailable || retry == nil || strings.Count(string(resp.Body), `http-equiv="refresh"`) != 1 {
		t.Fatalf("callback: got %v, want 503 and a page that retries: %s", resp, resp.Body)
	}
	f.redis.Resume(t)
	stats := f.as.Stats()
	if n := stats.Requests[fakeas.EndpointAuthorize] - authorized; n != 0 || stats.Grants[fakeas.GrantCode] != 0 {
		t.Errorf("got %d logins and %d code requests, want none", n, stats.Grants[fakeas.GrantCode])
	}
	eventually(t, "login after the outage", func() bool {
		page, err := f.visitor("alice", 0).at[0].Visit(t.Context(), f.site+string(retry[1]))
		if err != nil {
			t.Fatal(err)
		}
		return page.Status == http.StatusOK && page.URL.String() == f.site+"/wanted"
	})
}
