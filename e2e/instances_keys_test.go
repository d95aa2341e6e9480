package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
)

// TestInstancesKeyRotation replaces the keys, [A] → [B, A] → [B], in the key files of one instance after the other, under
// load. All sessions in use continue. A session that was unused during the whole change ends.
func TestInstancesKeyRotation(t *testing.T) {
	t.Parallel()
	a, b := newKey(), newKey()
	f := startFleet(t, fleetPlan{keys: []string{a, a, a}, options: "refresh_timeout 50s"})
	absent := f.loginVisitor(t, "absent", 0)
	old := f.sessionsByKey(t)
	if len(old) != 1 {
		t.Fatalf("got sessions by key %v, want one key", old)
	}
	f.setExpiresIn(shortLife) // each refresh seals the session again
	c := startCrowd(t, f)
	c.awaitRounds(t, 2)
	f.changeKeys(t, c, b, a)
	// The sessions in use move to the new key. Only the absent one keeps the old key.
	eventually(t, "new key of all sessions in use", func() bool {
		c.awaitRounds(t, 2)
		sealed := f.sessionsByKey(t)
		for id := range old {
			if sealed[id] != 1 {
				return false
			}
		}
		return len(sealed) == 2
	})
	f.changeKeys(t, c, b)
	c.awaitRounds(t, 5)
	c.finish(t)
	stats := f.as.Stats()
	if len(stats.RedeemedTwice) != 0 || stats.Reuses != 0 {
		t.Errorf("got tokens redeemed twice %v and %d reuses, want none", stats.RedeemedTwice, stats.Reuses)
	}
	// No instance has the old key.
	eventually(t, "end of the session with the old key", func() bool {
		resp := fetch(t, absent.at[0], f.site+"/api")
		if resp.Status != http.StatusServiceUnavailable && resp.Status != http.StatusUnauthorized {
			t.Fatalf("session with the old key: got %v, want 503 or 401", resp)
		}
		return resp.Status == http.StatusUnauthorized
	})
}

// changeKeys replaces the key files of one instance after the other, with rounds of the crowd in between, and waits until all
// instances use the new keys.
func (f *fleet) changeKeys(t testing.TB, c *crowd, keys ...string) {
	t.Helper()
	before := make([]int, len(f.nodes))
	for i, n := range f.nodes {
		before[i] = n.keyChanges(t)
	}
	for _, n := range f.nodes {
		n.setKeys(t, keys...)
		c.awaitRounds(t, 1)
	}
	for i, n := range f.nodes {
		eventually(t, "change of keys", func() bool {
			c.awaitRounds(t, 1)
			return n.keyChanges(t) > before[i]
		})
	}
}

// keyChanges returns the number of key changes in an instance's log.
func (n *node) keyChanges(t testing.TB) int {
	t.Helper()
	return strings.Count(n.Log(t), `"keys replaced"`)
}

// An item in Redis has a header of 16 bytes and then the sealed record. Its key ID begins after 4 bytes.
const (
	keyIDStart = 16 + 4
	keyIDEnd   = keyIDStart + 8
	// loginResultSize is the size of a login result. It keeps its key until it expires. Sessions are longer.
	loginResultSize = 16 + 52 + 4 + 32 + 2*28
)

// sessionsByKey returns the number of sessions by key ID.
func (f *fleet) sessionsByKey(t testing.TB) map[string]int {
	t.Helper()
	sealed := map[string]int{}
	for _, name := range f.redis.Keys(t, "oauth_session:{*}") {
		item, _ := f.redis.Do(t, "GET", name).(string) // nil if the session has ended since KEYS
		if len(item) > loginResultSize {
			sealed[item[keyIDStart:keyIDEnd]]++
		}
	}
	return sealed
}

// TestInstancesOtherKeys gives one instance another key. The instance logs an error, answers 503 and ends no session. After
// the correction of its key file it serves the sessions without a restart.
func TestInstancesOtherKeys(t *testing.T) {
	t.Parallel()
	a, b := newKey(), newKey()
	f := startFleet(t, fleetPlan{keys: []string{a, a, b}})
	v := f.visitor("mine", 0)
	if err := v.loginBy(t.Context(), v.at[0], "/wanted"); err != nil {
		t.Fatal(err)
	}
	misconfigured := f.nodes[2]
	eventually(t, "log entry about the keys", func() bool {
		return slices.ContainsFunc(misconfigured.errorLog(t), func(entry string) bool { return strings.Contains(entry, "none of the keys of this one") })
	})
	// The instance knows now that it lacks a key.
	for range 20 {
		for i := range 2 {
			if _, err := v.ask(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		for _, resp := range []*client.Response{fetch(t, v.at[2], f.site+"/api"), navigate(t, v.at[2], f.site+"/wanted")} {
			if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header["Set-Cookie"] != nil {
				t.Fatalf("at the instance with another key: got %v with %v, want 503 with Retry-After and no cookie", resp, resp.Header)
			}
		}
	}
	misconfigured.setKeys(t, a)
	eventually(t, "session at the corrected instance", func() bool {
		resp := fetch(t, v.at[2], f.site+"/api")
		if resp.Status == http.StatusServiceUnavailable {
			return false
		}
		if _, err := v.checkAnswer(resp); err != nil {
			t.Fatal(err)
		}
		return true
	})
	v.askAll(t)
	f.wantNoTokenReuse(t, 1)
}

// TestInstancesStartWithoutStore starts Caddy while Redis is down. Other sites work at once, and sessions work once Redis is
// up.
func TestInstancesStartWithoutStore(t *testing.T) {
	t.Parallel()
	other := newSite(t)
	f := startFleet(t, fleetPlan{
		keys: []string{newKey()}, sites: block(other, "respond other"),
		redis: redisserver.Start(t, redisserver.Options{AppendOnly: true}),
	})
	v := f.loginVisitor(t, "mine", 0)
	caddy := f.nodes[0]
	caddy.Kill(t)
	f.redis.Kill(t)
	caddy.Restart(t)
	if resp := navigate(t, client.New("", ""), other+"/"); resp.Status != http.StatusOK || string(resp.Body) != "other" {
		t.Errorf("other site: got %v, want its answer", resp)
	}
	if status, body := caddy.Admin(t, http.MethodGet, "/oauth_session/ready", ""); status != http.StatusServiceUnavailable {
		t.Errorf("readiness without Redis: got %d %s, want 503", status, body)
	}
	cookie := cookieOf(t, v.roundRobin, f.site)
	for _, resp := range []*client.Response{
		fetch(t, v.at[0], f.site+"/api"), navigate(t, v.at[0], f.site+"/wanted"), fetch(t, v.at[0], f.site+"/oauth2/session"),
	} {
		if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header["Set-Cookie"] != nil {
			t.Errorf("without Redis: got %v with %v, want 503 with Retry-After and no cookie", resp, resp.Header)
		}
	}
	if now := cookieOf(t, v.roundRobin, f.site); now != cookie {
		t.Errorf("got session cookie %s, want the former one %s", now, cookie)
	}
	f.redis.Restart(t)
	eventually(t, "session after the restart of Redis", func() bool {
		resp := fetch(t, v.at[0], f.site+"/api")
		if resp.Status == http.StatusServiceUnavailable {
			return false
		}
		if _, err := v.checkAnswer(resp); err != nil {
			t.Fatal(err)
		}
		return true
	})
	if status, body := caddy.Admin(t, http.MethodGet, "/oauth_session/ready", ""); status != http.StatusOK {
		t.Errorf("readiness with Redis: got %d %s, want 200", status, body)
	}
	f.wantNoTokenReuse(t, 1)
}

// TestInstancesNeedKey shows that a Redis store requires a configured key: instances with generated keys could not read each
// other's sessions.
func TestInstancesNeedKey(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{keys: []string{newKey()}})
	caddy := f.nodes[0]
	keyless := caddy.config
	keyless.Sites = strings.Replace(keyless.Sites, "key {file."+caddy.keyFile+"}", "", 1)
	const hint = "caddy oauth-session keygen"
	if err := caddy.Validate(t, keyless); err == nil || !strings.Contains(caddy.Log(t), hint) {
		t.Errorf("validation without a key: got error %v, want one and a hint in the log", err)
	}
	if err := caddy.Reload(t, keyless); err == nil || !strings.Contains(err.Error(), hint) {
		t.Errorf("reload without a key: got error %v, want one with a hint", err)
	}
	f.loginVisitor(t, "mine", 0) // the former configuration still works
}
