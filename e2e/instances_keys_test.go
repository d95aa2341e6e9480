package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
)

// TestInstancesKeyRotation replaces the key, [A] → [B, A] → [B], in the files of one instance after another, while users
// come by and others log in: nobody notices, but who stayed away the whole time.
func TestInstancesKeyRotation(t *testing.T) {
	t.Parallel()
	a, b := newKey(), newKey()
	f := startFleet(t, fleetPlan{keys: []string{a, a, a}, options: "refresh_timeout 50s"})
	absent := f.welcome(t, "absent", 0)
	old := f.sealedUnder(t) // the one key there is
	if len(old) != 1 {
		t.Fatalf("one session is sealed under %v", old)
	}
	f.tell(shortLife) // each refresh writes the session anew
	c := startCrowd(t, f)
	c.awaitRounds(t, 2)
	f.changeKeys(t, c, b, a)
	// Who comes by moves to the new key, and the absent one stays behind.
	eventually(t, "move of all sessions in use to the new key", func() bool {
		c.awaitRounds(t, 2)
		sealed := f.sealedUnder(t)
		for id := range old {
			if sealed[id] != 1 {
				return false
			}
		}
		return len(sealed) == 2
	})
	f.changeKeys(t, c, b)
	c.awaitRounds(t, 5)
	c.leave(t)
	stats := f.as.Stats()
	if len(stats.RedeemedTwice) != 0 || stats.Reuses != 0 {
		t.Errorf("redeemed twice: %v; spent tokens sent: %d", stats.RedeemedTwice, stats.Reuses)
	}
	// The old key is really gone.
	eventually(t, "end of the session under the old key", func() bool {
		resp := fetch(t, absent.at[0], f.site+"/api")
		if resp.Status != http.StatusServiceUnavailable && resp.Status != http.StatusUnauthorized {
			t.Fatalf("a session under a key that was dropped: %v", resp)
		}
		return resp.Status == http.StatusUnauthorized
	})
}

// changeKeys replaces the key files of one instance after another, under the eyes of the crowd, and waits until all have
// taken the keys over.
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

// keyChanges counts how often an instance has taken other keys over.
func (n *node) keyChanges(t testing.TB) int {
	t.Helper()
	return strings.Count(n.Log(t), `"keys replaced"`)
}

// Of a session Redis holds 16 bytes that it needs itself, and then the record, which names its key after 4 bytes.
const (
	keyIDStart = 16 + 4
	keyIDEnd   = keyIDStart + 8
	// loginResultSize is the length of the result of a login, which is sealed, too,
	// and keeps its key until it expires. Sessions are longer.
	loginResultSize = 16 + 52 + 4 + 32 + 2*28
)

// sealedUnder returns how many sessions each key seals, by the name in the record.
func (f *fleet) sealedUnder(t testing.TB) map[string]int {
	t.Helper()
	sealed := map[string]int{}
	for _, name := range f.redis.Keys(t, "oauth_session:{*}") {
		item, _ := f.redis.Do(t, "GET", name).(string) // it may have been deleted since
		if len(item) > loginResultSize {
			sealed[item[keyIDStart:keyIDEnd]]++
		}
	}
	return sealed
}

// TestInstancesOtherKeys gives one instance another key: it says so, and harms nobody's session. When it is put right it
// joins the others by itself.
func TestInstancesOtherKeys(t *testing.T) {
	t.Parallel()
	a, b := newKey(), newKey()
	f := startFleet(t, fleetPlan{keys: []string{a, a, b}})
	v := f.visitor("mine", 0)
	if err := v.loginBy(t.Context(), v.at[0], "/wanted"); err != nil {
		t.Fatal(err)
	}
	stray := f.nodes[2]
	eventually(t, "complaint about the keys", func() bool {
		return slices.ContainsFunc(stray.complaints(t), func(c string) bool { return strings.Contains(c, "none of this one's keys") })
	})
	// By now the stray one knows that there is a key it lacks.
	for range 20 {
		for i := range 2 {
			if _, err := v.ask(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		for _, resp := range []*client.Response{fetch(t, v.at[2], f.site+"/api"), navigate(t, v.at[2], f.site+"/wanted")} {
			if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header["Set-Cookie"] != nil {
				t.Fatalf("the instance with another key: %v with %v", resp, resp.Header)
			}
		}
	}
	stray.setKeys(t, a)
	eventually(t, "session at the instance that was put right", func() bool {
		resp := fetch(t, v.at[2], f.site+"/api")
		if resp.Status == http.StatusServiceUnavailable {
			return false
		}
		if _, err := v.own(resp); err != nil {
			t.Fatal(err)
		}
		return true
	})
	v.everywhere(t)
	f.unspoiled(t, 1)
}

// TestInstancesStartWithoutStore starts Caddy while Redis is down: other sites serve, and sessions wait for it.
func TestInstancesStartWithoutStore(t *testing.T) {
	t.Parallel()
	other := newSite(t)
	f := startFleet(t, fleetPlan{
		keys: []string{newKey()}, more: block(other, "respond other"),
		redis: redisserver.Start(t, redisserver.Options{AppendOnly: true}),
	})
	v := f.welcome(t, "mine", 0)
	caddy := f.nodes[0]
	caddy.Kill(t)
	f.redis.Kill(t)
	caddy.Restart(t)
	if resp := navigate(t, client.New("", ""), other+"/"); resp.Status != http.StatusOK || string(resp.Body) != "other" {
		t.Errorf("the other site: %v", resp)
	}
	if status, body := caddy.Admin(t, http.MethodGet, "/oauth_session/ready", ""); status != http.StatusServiceUnavailable {
		t.Errorf("readiness without Redis: %d %s", status, body)
	}
	cookie := cookieOf(t, v.round, f.site)
	for _, resp := range []*client.Response{
		fetch(t, v.at[0], f.site+"/api"), navigate(t, v.at[0], f.site+"/wanted"), fetch(t, v.at[0], f.site+"/oauth2/session"),
	} {
		if resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header["Set-Cookie"] != nil {
			t.Errorf("without Redis: %v with %v", resp, resp.Header)
		}
	}
	if now := cookieOf(t, v.round, f.site); now != cookie {
		t.Errorf("the session cookie was changed from %s to %s", cookie, now)
	}
	f.redis.Restart(t)
	eventually(t, "session when Redis is back", func() bool {
		resp := fetch(t, v.at[0], f.site+"/api")
		if resp.Status == http.StatusServiceUnavailable {
			return false
		}
		if _, err := v.own(resp); err != nil {
			t.Fatal(err)
		}
		return true
	})
	if status, body := caddy.Admin(t, http.MethodGet, "/oauth_session/ready", ""); status != http.StatusOK {
		t.Errorf("readiness with Redis: %d %s", status, body)
	}
	f.unspoiled(t, 1)
}

// TestInstancesNeedKey leaves the key out: instances that made one each could not read each other's sessions.
func TestInstancesNeedKey(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{keys: []string{newKey()}})
	caddy := f.nodes[0]
	keyless := caddy.config
	keyless.Sites = strings.Replace(keyless.Sites, "key {file."+caddy.keyFile+"}", "", 1)
	const hint = "caddy oauth-session keygen"
	if err := caddy.Validate(t, keyless); err == nil || !strings.Contains(caddy.Log(t), hint) {
		t.Errorf("a configuration without a key is valid, or the log gives no hint: error %v", err)
	}
	if err := caddy.Reload(t, keyless); err == nil || !strings.Contains(err.Error(), hint) {
		t.Errorf("a reload without a key: got error %v, want a hint", err)
	}
	f.welcome(t, "mine", 0) // the former configuration goes on
}
