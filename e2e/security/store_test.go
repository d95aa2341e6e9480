package security

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// loginPersonalUsers logs n users in with unique names and claims. It returns their
// session cookies and the personal words.
func (w *world) loginPersonalUsers(t *testing.T, n int) (sessions []string, words []string) {
	t.Helper()
	for i := range n {
		user := fakeas.User{Name: canary("USER_", 16), Subject: canary("SUB_", 16)}
		email := canary("MAIL_", 16) + "@example.test"
		user.Claims = map[string]any{"email": email, "name": canary("NAME_", 16)}
		w.idp.SetUser(user)
		if i%2 == 1 { // a second session of the same user
			w.browser().loginAs(t, user.Name, "/")
		}
		b := w.browser()
		b.loginAs(t, user.Name, "/")
		sessions = append(sessions, b.session())
		words = append(words, user.Name, user.Subject, email, user.Claims["name"].(string))
	}
	for _, issued := range w.idp.Tokens() {
		words = append(words, issued.Family) // the sid
	}
	return sessions, words
}

// checkStoreReveals checks that a store contains none of the words and no eight bytes of a
// session cookie.
func checkStoreReveals(t *testing.T, store []byte, sessions, words []string) {
	t.Helper()
	for _, word := range words {
		if bytes.Contains(store, []byte(word)) {
			t.Errorf("the store contains %.8s…", word)
		}
	}
	const window = 8
	pieces := map[string]bool{}
	for _, cookie := range sessions {
		raw, err := base64.RawURLEncoding.DecodeString(cookie)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{cookie, string(raw), hex.EncodeToString(raw)} {
			for at := 0; at+window <= len(text); at++ {
				pieces[text[at:at+window]] = true
			}
		}
	}
	for at := 0; at+window <= len(store); at++ {
		if pieces[string(store[at:at+window])] {
			t.Fatalf("the store contains a part of a cookie at byte %d", at)
		}
	}
}

// TestS48StoreRevealsNothing: records are sealed, their keys are hashes, and file modes
// exclude other users.
func TestS48StoreRevealsNothing(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		w := shared(t)
		sessions, words := w.loginPersonalUsers(t, 50)
		file := w.instances[0].sessionsFile()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(content, []byte("\xa5s\x01\x01")); n < 50 {
			t.Fatalf("got %d records in the file, want at least 50", n)
		}
		checkStoreReveals(t, content, sessions, words)
		for path, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
			stat, err := os.Stat(path)
			if err != nil || stat.Mode().Perm() != want {
				t.Errorf("%s: got mode %v, want %v; %v", filepath.Base(path), stat.Mode().Perm(), want, err)
			}
		}
	})
	t.Run("Redis", func(t *testing.T) {
		w := sharedRedis(t)
		before := w.sessionKeys(t) // keys of other tests
		sessions, words := w.loginPersonalUsers(t, 20)
		checkStoreReveals(t, w.redisBytes(t), sessions, words)
		name := regexp.MustCompile(`^oauth_session:\{[A-Za-z0-9_-]{43}\}$`)
		seen := map[string]bool{}
		for _, key := range w.sessionKeys(t) {
			if slices.Contains(before, key) {
				continue
			}
			value, _ := w.redis.Do(t, "GET", key).(string)
			if !name.MatchString(key) || value == "" || seen[value] {
				t.Errorf("key %q is not a hash, or its value is empty or a copy", key)
			}
			seen[value] = true
			if pttl, _ := w.redis.Do(t, "PTTL", key).(int64); pttl <= 0 {
				t.Errorf("key %q never expires", key)
			}
		}
		if len(seen) < 20 {
			t.Errorf("got %d sessions, want at least 20", len(seen))
		}
	})
}

// TestS49StolenStoreIsUseless: a stolen store and the server keys give no access without a
// session cookie.
func TestS49StolenStoreIsUseless(t *testing.T) {
	dir := t.TempDir()
	option := func(name string) string { return "store bolt {\n\tpath " + filepath.Join(dir, name) + "\n}" }
	w := newWorld(t, plan{options: option("sessions.db")})
	w.announceLifetime(1)
	b := w.browser()
	b.login(t, "/")
	w.instances[0].Stop(t)
	content, err := os.ReadFile(filepath.Join(dir, "sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stolen.db"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	w.plan.options = option("stolen.db")
	w.start(t, proc.FreePort(t))
	w.inspectAtEnd(t)
	w.instances[0], w.instances[1] = w.instances[1], w.instances[0]
	calls := w.tokenRequests()
	for range 10 { // any request without the cookie
		w.checkRefused(t, w.browser().xhr(t, http.MethodGet, "/x"))
	}
	// Only waiting can show that the copy does not refresh by itself: two lives of the
	// token.
	time.Sleep(2 * time.Second)
	if n := w.tokenRequests(); n != calls {
		t.Errorf("without a cookie: got %d token requests, want none", n-calls)
	}
	b = b.at(0)
	b.checkSession(t)
	if n := w.tokenRequests(); n != calls+1 {
		t.Errorf("with the cookie: got %d token requests, want 1", n-calls)
	}
}

// TestS57LogoutCountsEverywhere: after a logout at one instance the cookie is invalid at
// all instances.
func TestS57LogoutCountsEverywhere(t *testing.T) {
	w := sharedRedis(t)
	for i := range 10 {
		b := w.browser()
		key := w.newSessionKey(t, func() { b.login(t, "/") })
		b.at(1).checkSession(t) // both instances have cached the record
		line := "Cookie: " + sessionCookie + "=" + b.session()
		at := i % 2
		if resp := b.at(at).xhr(t, http.MethodPost, logout); resp.Status != http.StatusOK {
			t.Fatalf("logout: got %v, want 200", resp)
		}
		replay := w.browserAt(at).send(t, http.MethodGet, "/replay", "", append([]string{line}, scriptHeaders...)...)
		w.checkRefused(t, replay)
		// The store announces the logout to the other instance long before its cached
		// record expires.
		other := w.browserAt(1 - at)
		deadline := time.Now().Add(waitLimit)
		for other.send(t, http.MethodGet, "/replay", "", append([]string{line}, scriptHeaders...)...).Status != http.StatusUnauthorized {
			if time.Now().After(deadline) {
				t.Fatal("the other instance still serves the session")
			}
		}
		if got := w.redis.Do(t, "EXISTS", key); got != int64(0) {
			t.Error("Redis still has the record")
		}
	}
}

// TestS60FilesHoldNoSecret: the configuration that Caddy writes holds no secret, and the
// files of sessions are private.
func TestS60FilesHoldNoSecret(t *testing.T) {
	w := shared(t)
	w.browser().login(t, "/")
	in := w.instances[0]
	adapted, err := in.Command(t, "adapt", "--config", filepath.Join(in.dir(), "Caddyfile"))
	if err != nil || !strings.Contains(adapted, "oauth_session") {
		t.Fatalf("caddy adapt: got %v, %s", err, adapted)
	}
	_, config := in.Admin(t, http.MethodGet, "/config/", "")
	autosave, err := os.ReadFile(filepath.Join(in.dir(), "config", "caddy", "autosave.json"))
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{"caddy adapt": adapted, "/config/": config, "autosave.json": string(autosave)} {
		if !strings.Contains(text, "{env.CLIENT_SECRET}") {
			t.Errorf("%s is not the configuration: %.200s", place, text)
		}
		for _, f := range newSecretFinder(w.secrets()).find(place, []byte(text)) {
			t.Errorf("leak: %v", f)
		}
	}
	err = filepath.WalkDir(filepath.Join(in.DataDir, "oauth_session"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		stat, err := entry.Info()
		if err == nil && stat.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: got mode %v, want no rights for others", entry.Name(), stat.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
