package security

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// loginWithShortToken logs in with a token that lives for few seconds. It returns before a
// refresh is due, with the time from now until the token has expired. Refreshed tokens
// live for five minutes.
func (w *world) loginWithShortToken(t testing.TB) (b *browser, expired time.Duration) {
	t.Helper()
	for life := 2; ; life *= 2 { // a login on a busy machine takes longer
		announceLifetimes(w.idp, life, 300)
		begun := time.Now()
		b = w.newBrowser(w.instances[0], true)
		b.login(t, "/short-lived")
		if time.Since(begun) < time.Duration(life)*time.Second*7/10 { // a refresh is due after 70 % of the life at the earliest
			return b, untilExpired(life)
		}
	}
}

// untilExpired returns the time after which a token with a life in seconds has expired.
func untilExpired(life int) time.Duration {
	return time.Duration(life)*time.Second + 100*time.Millisecond
}

// manyLoginsLife is the life of a token in seconds. No refresh is due before a series of
// logins is complete.
const manyLoginsLife = 10

// TestS89ExpiryCausesOneRefresh: 200 requests at the expiry of a token cause one refresh,
// on one instance and on two.
func TestS89ExpiryCausesOneRefresh(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*testing.T) *world{"one instance": shared, "two instances": sharedRedis} {
		t.Run(name, func(t *testing.T) {
			w := take(t)
			// A reload closes Caddy's idle connections to the app.
			atCleanup(t, func(t testing.TB) { w.reloadVariants(t) })
			b, expired := w.loginWithShortToken(t)
			w.idp.Set(func(k *fakeas.Knobs) { k.LatencyBefore = 500 * time.Millisecond })
			browsers := []*browser{b}
			for _, in := range w.instances[1:] {
				other := &browser{Client: b.Twin(), w: w}
				other.use(in, true)
				browsers = append(browsers, other)
			}
			before := w.idp.Stats()
			sleep(t, expired)
			seen := w.appRequests(func() { burst(t, 200, browsers) })
			after := w.idp.Stats()
			if n := after.Grants[fakeas.GrantRefresh] - before.Grants[fakeas.GrantRefresh]; n != 1 {
				t.Errorf("got %d refreshes, want 1", n)
			}
			if after.Reuses != before.Reuses || len(after.RedeemedTwice) > 0 {
				t.Errorf("refresh tokens: %d reuses, %d redeemed twice, want none", after.Reuses-before.Reuses, len(after.RedeemedTwice))
			}
			issued := issuedTokens(w.idp, fakeas.KindAccess, fakeas.DefaultUser)
			for _, r := range seen {
				if r.Bearer() != issued[len(issued)-1] {
					t.Errorf("%s has another token than the new one", r.Line)
				}
			}
			if len(seen) != 200 {
				t.Errorf("the app got %d requests, want 200", len(seen))
			}
		})
	}
}

// burst sends n requests at once, spread over the browsers. It checks that the app answers
// each.
func burst(t *testing.T, n int, browsers []*browser) {
	t.Helper()
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			resp, err := browsers[i%len(browsers)].trySend(t.Context(), http.MethodGet, fmt.Sprintf("/burst/%d", i), "", scriptHeaders...)
			if err != nil || resp.Status != http.StatusOK {
				t.Errorf("request %d: got %v, %v, want 200", i, resp, err)
			}
		})
	}
	running.Wait()
}

// An answerShape is a change of the token answer to a refresh.
type answerShape struct {
	change func(map[string]any)
	kept   bool // the answer is unusable: the session waits
}

// answerShapes returns the changes by their names.
func answerShapes() map[string]answerShape {
	drop := func(name string) func(map[string]any) { return func(m map[string]any) { delete(m, name) } }
	set := func(name string, value any) func(map[string]any) { return func(m map[string]any) { m[name] = value } }
	return map[string]answerShape{
		"new refresh token":      {change: func(map[string]any) {}},
		"narrower scope":         {change: set("scope", "openid")},
		"no expires_in":          {change: drop("expires_in")},
		"expires_in text":        {change: set("expires_in", "300")},
		"expires_in negative":    {change: set("expires_in", -5)},
		"expires_in zero":        {change: set("expires_in", 0)},
		"expires_in huge":        {change: set("expires_in", json.RawMessage("1e300"))},
		"expires_in null":        {change: set("expires_in", nil)},
		"no token_type":          {change: drop("token_type")},
		"token_type bearer":      {change: set("token_type", "bearer")},
		"no id_token":            {change: drop("id_token")},
		"unknown member":         {change: set("x", map[string]any{"access_token": "nested"})},
		"token_type mac":         {change: set("token_type", "mac"), kept: true},
		"token_type DPoP":        {change: set("token_type", "DPoP"), kept: true},
		"token_type no text":     {change: set("token_type", 7), kept: true},
		"no access_token":        {change: drop("access_token"), kept: true},
		"access_token empty":     {change: set("access_token", ""), kept: true},
		"access_token null":      {change: set("access_token", nil), kept: true},
		"access_token space":     {change: set("access_token", "AT_a b"), kept: true},
		"access_token line":      {change: set("access_token", "AT_a\r\nX-Evil: 1"), kept: true},
		"access_token not ASCII": {change: set("access_token", "AT_ä"), kept: true},
	}
}

// TestS91EveryRefreshAnswerKeepsTheSession: an unusual but valid answer to a refresh is
// used. An unusable answer keeps the session, which waits with 503.
func TestS91EveryRefreshAnswerKeepsTheSession(t *testing.T) {
	w := shared(t)
	shapes := answerShapes()
	v := &variant{name: "shapes"}
	w.addVariants(t, v)
	var mu sync.Mutex
	spoiled := true
	announceLifetimes(v.idp, manyLoginsLife, 300)
	v.idp.Set(func(k *fakeas.Knobs) {
		k.Mutate = func(grant string, answer map[string]any) {
			mu.Lock()
			defer mu.Unlock()
			if grant == fakeas.GrantRefresh && spoiled {
				shapes[subjectOf(answer)].change(answer)
			}
		}
	})
	browsers := map[string]*browser{}
	for name := range shapes {
		browsers[name] = w.newBrowser(w.instances[0], true)
		v.login(t, browsers[name], name)
	}
	sleep(t, untilExpired(manyLoginsLife))
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			b, begun := browsers[name], time.Now()
			resp := v.get(t, b, "/x")
			issued := issuedTokens(v.idp, fakeas.KindAccess, name)
			switch {
			case !shape.kept && (resp.Status != http.StatusOK || !appReceived(v.app, issued[len(issued)-1])):
				t.Errorf("got %v, want 200 with the new token", resp)
			case shape.kept && (resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == ""):
				t.Errorf("got %v, want 503 with Retry-After", resp)
			}
			for range 5 {
				v.get(t, b, "/again")
			}
			most := 0
			if shape.kept {
				most = int(time.Since(begun) / time.Second) // one second is the shortest pause
			}
			if n := len(issuedTokens(v.idp, fakeas.KindAccess, name)) - len(issued); n > most {
				t.Errorf("got %d more refreshes, want at most %d", n, most)
			}
		})
	}
	mu.Lock()
	spoiled = false
	mu.Unlock()
	for name := range shapes {
		eventually(t, "good token for "+name, func() bool { return v.get(t, browsers[name], "/good").Status == http.StatusOK })
	}
	if stats := v.idp.Stats(); stats.Reuses > 0 || len(stats.RedeemedTwice) > 0 {
		t.Errorf("refresh tokens: %d reuses, %d redeemed twice, want none", stats.Reuses, len(stats.RedeemedTwice))
	}
	for _, r := range v.app.Requests() {
		if token := r.Bearer(); !strings.HasPrefix(token, "AT_") || len(r.Values("X-Evil")) > 0 {
			t.Errorf("%s has headers %q", r.Line, r.Headers)
		}
	}
}

// TestS91RefreshTokenIsKept: an answer without a refresh token, or with the same one,
// leaves the old refresh token valid.
func TestS91RefreshTokenIsKept(t *testing.T) {
	w := shared(t)
	var all []*variant
	for name, rotation := range map[string]fakeas.Rotation{"no-refresh-token": fakeas.RotateNever, "same-refresh-token": fakeas.RotateSame} {
		v := &variant{name: name, idp: fakeas.Start(t, fakeas.Options{})}
		v.idp.Set(func(k *fakeas.Knobs) { k.SigningAlg, k.Rotation = "ES256", rotation })
		announceLifetimes(v.idp, 1, 1)
		all = append(all, v)
	}
	// Of a repeated member one value counts, whole.
	twice := &variant{name: "twice"}
	w.addVariants(t, append(all, twice)...)
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := w.browser()
			v.login(t, b, "u")
			issued := issuedTokens(v.idp, fakeas.KindRefresh, "u")
			eventually(t, "second refresh with the same token", func() bool {
				if resp := v.get(t, b, "/x"); resp.Status != http.StatusOK {
					t.Fatalf("got %v, want 200", resp)
				}
				return v.idp.Stats().Redeemed[issued[0]] >= 2
			})
		})
	}
	announceLifetimes(twice.idp, 2, 300)
	first, second := canary("AT_", 64), canary("AT_", 64)
	w.addSecret(first)
	w.addSecret(second)
	body := fmt.Sprintf(`{"access_token":%q,"token_type":"mac","access_token":%q,"token_type":"Bearer","expires_in":300}`, first, second)
	twice.idp.Fail(fakeas.Answer(http.StatusOK, "application/json", body).For(fakeas.GrantRefresh))
	b := w.browser()
	twice.login(t, b, "u")
	sleep(t, untilExpired(2))
	if resp := twice.get(t, b, "/x"); resp.Status != http.StatusOK || appReceived(twice.app, first) || !appReceived(twice.app, second) {
		t.Errorf("repeated members: got %v, want 200 with the last token", resp)
	}
}

// TestS92InvalidGrantEndsTheSession: an invalid refresh token ends the session on all
// instances and costs one token request.
func TestS92InvalidGrantEndsTheSession(t *testing.T) {
	w := sharedRedis(t)
	for _, kind := range []string{"script", "navigation"} {
		t.Run(kind, func(t *testing.T) {
			b, expired := w.loginWithShortToken(t)
			cookie := "Cookie: " + sessionCookie + "=" + b.session()
			issued := issuedTokens(w.idp, fakeas.KindRefresh, fakeas.DefaultUser)
			w.idp.Revoke(issued[len(issued)-1])
			sleep(t, expired)
			before := w.refreshes()
			var resp *client.Response
			if kind == "script" {
				resp = b.xhr(t, http.MethodGet, "/x")
			} else {
				resp = b.nav(t, "/x")
			}
			w.checkRefused(t, resp)
			if b.session() != "" {
				t.Error("the browser still has the cookie")
			}
			for i := range w.instances {
				w.checkRefused(t, w.browserAt(i).send(t, http.MethodGet, "/x", "", append([]string{cookie}, scriptHeaders...)...))
				w.checkRefused(t, w.browserAt(i).send(t, http.MethodGet, "/x", "", append([]string{cookie}, navigationHeaders...)...))
			}
			if n := w.refreshes() - before; n != 1 {
				t.Errorf("got %d refreshes, want 1", n)
			}
		})
	}
	t.Run("no loop", func(t *testing.T) {
		b, expired := w.loginWithShortToken(t)
		w.idp.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh).Repeat(-1))
		sleep(t, expired)
		before := w.idp.Stats()
		announceLifetimes(w.idp, 300, 300)
		b.login(t, "/again")
		after := w.idp.Stats()
		for grant, n := range after.Grants {
			if n -= before.Grants[grant]; n != 1 {
				t.Errorf("got %d requests with %s, want 1", n, grant)
			}
		}
	})
}

// TestS98ExpiredTokenIsNeverSent: tokens that live for one or two seconds, and server
// clocks that are wrong by a minute, cause neither an expired token at the app nor a storm
// of refreshes.
func TestS98ExpiredTokenIsNeverSent(t *testing.T) {
	w := shared(t)
	var all []*variant
	ages := map[*variant]*tokenClock{}
	for _, format := range []fakeas.TokenFormat{fakeas.FormatOpaque, fakeas.FormatJWT} {
		for name, offset := range map[string]time.Duration{"behind": -time.Minute, "right": 0, "ahead": time.Minute} {
			v := &variant{name: fmt.Sprintf("clock-%s-%s", name, format), idp: fakeas.Start(t, fakeas.Options{})}
			ages[v] = &tokenClock{life: 2 * time.Second}
			v.checkToken = ages[v].record
			v.idp.Set(func(k *fakeas.Knobs) {
				k.SigningAlg, k.ClockOffset, k.AccessTokenFormat, k.AccessTokenLifetime = "ES256", offset, format, 2*time.Second
				if format == fakeas.FormatJWT {
					// Then exp is the only expiry, by the server's clock.
					k.LoginAnswer.Omit = []string{"expires_in"}
					k.RefreshAnswer.Omit = []string{"expires_in"}
				}
			})
			all = append(all, v)
		}
	}
	tiny := &variant{name: "tiny"}
	tiny.idp = fakeas.Start(t, fakeas.Options{})
	tiny.idp.Set(func(k *fakeas.Knobs) { k.SigningAlg, k.AccessTokenLifetime = "ES256", time.Second })
	ages[tiny] = &tokenClock{life: time.Second}
	tiny.checkToken = ages[tiny].record
	all = append(all, tiny)
	w.addVariants(t, all...)
	var running sync.WaitGroup
	for _, v := range all {
		running.Go(func() {
			b := w.browser()
			began := time.Now()
			if page, err := b.Visit(t.Context(), v.url+"/first"); err != nil || page.Status != http.StatusOK {
				t.Errorf("%s: login: got %v, %v, want 200", v.name, page, err)
				return
			}
			for n := 1; time.Since(began) < amount(6*time.Second, time.Minute) || v.refreshes() < 2 && time.Since(began) < waitLimit; n++ {
				if n%20 == 0 {
					sleep(t, ages[v].life) // no request before the token has expired
				}
				sent := time.Now()
				resp, err := b.Fetch(t.Context(), http.MethodGet, v.url+"/x", "")
				if err != nil || resp.Status != http.StatusOK {
					t.Errorf("%s: got %v, %v, want 200", v.name, resp, err)
					return
				}
				if late := ages[v].expiredFor(sent); late > 0 {
					t.Errorf("%s: the app got a token that had been expired for %v when the request was sent", v.name, late)
				}
			}
			if n, most := v.refreshes(), int(time.Since(began)/time.Second)+1; n < 2 || n > most {
				t.Errorf("%s: got %d refreshes, want 2 to %d", v.name, n, most)
			}
		})
	}
	running.Wait()
}

// TestS99IdleSessionIsNotRefreshed: only requests cause refreshes. An unused session ends
// at its idle limit and leaves no key. Redis expires the key by itself an hour later,
// which allows for unwritten uses and different clocks; a request for the ended session
// deletes it at once.
func TestS99IdleSessionIsNotRefreshed(t *testing.T) {
	w := sharedRedis(t)
	v := &variant{name: "idle", options: "idle_timeout 5s"}
	w.addVariants(t, v)
	announceLifetimes(v.idp, 1, 1)
	before := w.sessionKeys(t)
	b := w.browser()
	v.login(t, b, "u")
	made := slices.DeleteFunc(w.sessionKeys(t), func(key string) bool { return slices.Contains(before, key) })
	if len(made) == 0 {
		t.Fatal("the login created no key in Redis")
	}
	for _, key := range made {
		if left, _ := w.redis.Do(t, "PTTL", key).(int64); left <= 0 || left > (time.Hour+time.Minute).Milliseconds() {
			t.Errorf("got a lifetime of %d ms for a key, want more than 0 and at most 61 min", left)
		}
	}
	refreshes := v.refreshes()
	sleep(t, 6*time.Second)
	if n := v.refreshes() - refreshes; n > 1 { // one may have started at the login
		t.Errorf("unused session: got %d refreshes, want at most 1", n)
	}
	refreshes = v.refreshes()
	if resp := v.get(t, b, "/x"); resp.Status != http.StatusUnauthorized {
		t.Errorf("after the idle limit: got %v, want 401", resp)
	}
	if v.refreshes() != refreshes {
		t.Error("the site refreshed the ended session")
	}
	eventually(t, "end of the session's record", func() bool {
		return !slices.ContainsFunc(w.sessionKeys(t), func(key string) bool { return slices.Contains(made, key) })
	})
}

// postLogout logs out as the form on the site's logout page does, and returns the answer.
func postLogout(ctx context.Context, b *browser, site string) (*client.Response, error) {
	u, err := url.Parse(site)
	if err != nil {
		return nil, err
	}
	return b.trySend(ctx, http.MethodPost, site+logout, "", "Content-Type: application/x-www-form-urlencoded",
		"Origin: "+u.Scheme+"://"+u.Host, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin")
}
