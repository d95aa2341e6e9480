package security

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// redisUser is a plan with a Redis in which the site has its own user with the given
// rights.
func redisUser(password string, rights ...string) plan {
	return plan{
		redis:      true,
		redisArgs:  append([]string{"--appendonly", "yes", "--appendfsync", "always", "--user", "caddy", "on", ">" + password}, rights...),
		redisStore: "{\n\turl {REDIS}\n\tusername caddy\n\tpassword {env.REDIS_PASSWORD}\n}",
		env:        []string{"REDIS_PASSWORD=" + password},
	}
}

// statusesOf sends requests of one browser concurrently. It returns their statuses, with 0
// for no answer.
func (b *browser) statusesOf(t *testing.T, requests map[string][2]string, lines map[string][]string) map[string]int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	for name, request := range requests {
		wg.Go(func() {
			resp, err := b.trySend(t.Context(), request[0], request[1], "", lines[name]...)
			mu.Lock()
			defer mu.Unlock()
			if got[name] = 0; err == nil {
				got[name] = resp.Status
				if resp.Status == http.StatusServiceUnavailable && (resp.Header.Get("Retry-After") == "" || resp.Header.Get("Set-Cookie") != "") {
					t.Errorf("%s: got 503 with Retry-After %q and %d cookies", name, resp.Header.Get("Retry-After"), len(resp.Header.Values("Set-Cookie")))
				}
			}
		})
	}
	wg.Wait()
	return got
}

// TestS53StoreFailureEndsNoSession: without its store the site answers 503. It lets no
// user in and logs no user out. Package session/bolt tests a full disk, which cannot be
// simulated for a whole process.
func TestS53StoreFailureEndsNoSession(t *testing.T) {
	password := canary("PASSWORD_", 32)
	rights := []string{"~oauth_session:*", "+@all", "&*"}
	p := redisUser(password, rights...)
	p.mostlyWaits = true
	w := newWorld(t, p)
	w.addSecret(password)
	requests := map[string][2]string{
		"script": {http.MethodGet, "/x"}, "navigation": {http.MethodGet, "/x"}, "unsafe": {http.MethodPost, "/x"}, "endpoint": {http.MethodGet, sessionInfo},
		// A session cookie never becomes an anonymous request because of a store error.
		"optional page": {http.MethodGet, "/static/x"},
	}
	lines := map[string][]string{"script": scriptHeaders, "navigation": navigationHeaders, "unsafe": scriptHeaders, "endpoint": scriptHeaders, "optional page": navigationHeaders}
	for _, tc := range []struct {
		name         string
		fail, repair func()
	}{
		{"stopped", func() { w.redis.Stop(t) }, func() { w.redis.Restart(t); w.inspectAtEnd(t) }},
		{"frozen", func() { w.redis.Pause(t) }, func() { w.redis.Resume(t) }},
		{"user is gone", func() { w.redis.Do(t, "ACL", "DELUSER", "caddy") }, func() {
			w.redis.Do(t, append([]string{"ACL", "SETUSER", "caddy", "on", ">" + password}, rights...)...)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := w.browser()
			b.login(t, "/")
			cookie := b.session()
			tc.fail()
			defer func() {
				tc.repair()
				for i := range w.instances {
					eventually(t, "session after the outage", func() bool { return b.at(i).xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
				}
				if b.session() != cookie {
					t.Error("the outage changed the session cookie")
				}
			}()
			for i := range w.instances {
				// For a moment an instance may serve from its record cache.
				eventually(t, "answer without the store", func() bool { return b.at(i).xhr(t, http.MethodGet, "/x").Status != http.StatusOK })
				reached := w.appRequests(func() {
					for kind, status := range b.at(i).statusesOf(t, requests, lines) {
						if status != http.StatusServiceUnavailable {
							t.Errorf("instance %d, %s: got %d, want 503", i+1, kind, status)
						}
					}
				})
				if len(reached) != 0 {
					t.Errorf("the app got %v, want no request", reached)
				}
			}
			if resp := w.browser().xhr(t, http.MethodGet, "/static/x"); resp.Status != http.StatusOK {
				t.Errorf("optional page without a cookie: got %v, want 200", resp)
			}
		})
	}
}

// TestS53ReadOnlyStoreAdmitsNoNewSession: with a store that is readable but not writable,
// sessions continue and logins fail.
func TestS53ReadOnlyStoreAdmitsNoNewSession(t *testing.T) {
	password := canary("PASSWORD_", 32)
	w := newWorld(t, redisUser(password, "~oauth_session:*", "+@all", "&*"))
	w.addSecret(password)
	b := w.browser()
	b.login(t, "/")
	newUser := w.browser()
	answer := newUser.approve(t, newUser.start(t, "/x"))
	w.redis.Do(t, "REPLICAOF", "127.0.0.1", "1")
	defer w.redis.Do(t, "REPLICAOF", "NO", "ONE")
	if resp := newUser.nav(t, answer.String()); resp.Status != http.StatusServiceUnavailable || newUser.session() != "" {
		t.Errorf("login: got %d, want 503; a session exists: %v", resp.Status, newUser.session() != "")
	}
	for _, status := range b.statusesOf(t, map[string][2]string{"": {http.MethodGet, "/x"}}, map[string][]string{"": scriptHeaders}) {
		if status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("session: got %d, want 200 or 503", status)
		}
	}
}

// TestS55InputIsNotPartOfRedisCommands: no part of a request or of the authorization
// server's answers becomes a key or a command. A Redis user limited to the key prefix is
// sufficient.
func TestS55InputIsNotPartOfRedisCommands(t *testing.T) {
	password := canary("PASSWORD_", 32)
	w := newWorld(t, redisUser(password, "~oauth_session:*", "&*", "+@all", "-@admin", "-@dangerous"))
	w.addSecret(password)
	w.redis.Do(t, "SET", "other-key", "untouched")
	w.redis.Do(t, "ACL", "LOG", "RESET")
	commands := w.monitor(t)
	hostile := []string{
		"*", "\r\nFLUSHALL\r\n", "x FLUSHALL", "{tag}", "oauth_session:*", strings.Repeat("A", 43), strings.Repeat("A", 42) + "*",
		strings.Repeat("{", 43), strings.Repeat("A", 60<<10), "$6\r\nFLUSHALL\r\n", "\x00", "'; return redis.call('flushall') --",
	}
	for _, value := range hostile {
		w.idp.Set(func(k *fakeas.Knobs) {
			k.LoginIDToken.Claims = fakeas.Edit{Set: map[string]any{"sid": value, "sub": "sub" + value}}
		})
		header := strings.NewReplacer("\r", "%0d", "\n", "%0a", "\x00", "%00").Replace(value)
		w.rawGet(t, "/x", append([]string{"Cookie: " + sessionCookie + "=" + header}, scriptHeaders...)...)
		w.rawGet(t, callback+"?code=x&state="+url.QueryEscape(value[:min(len(value), 30<<10)]), navigationHeaders...)
		w.browser().send(t, http.MethodPost, backchannel, "logout_token="+url.QueryEscape(value), "Content-Type: application/x-www-form-urlencoded")
		if len(value) < 1<<10 {
			b := w.browser()
			// The site may accept or refuse the server's sid; both are harmless.
			if _, err := b.tryLogin(t.Context(), "/"); err == nil {
				b.xhr(t, http.MethodPost, logout)
			}
		}
	}
	got := commands()
	if len(got) < len(hostile) {
		t.Fatalf("got %d commands, want at least %d", len(got), len(hostile))
	}
	// Prefix, kind, and hashes of fixed length, or the first byte of one.
	key := regexp.MustCompile(`^oauth_session:(?:\{[A-Za-z0-9_-]{43}\}(?::lease|:landed|:label)?|[a-z]+:\{[A-Za-z0-9_-]{43}\}|list:\{[0-9a-f]{2}\})$`)
	for _, command := range got {
		for _, word := range command {
			if strings.HasPrefix(word, "oauth_session:") && !key.MatchString(word) {
				t.Errorf("%s: got key %q", command[0], word)
			}
			if strings.EqualFold(word, "FLUSHALL") {
				t.Errorf("the site sent %q", command)
			}
		}
	}
	if w.redis.Do(t, "GET", "other-key") != "untouched" {
		t.Error("the key outside the prefix has changed")
	}
	for _, k := range w.redis.Keys(t, "*") {
		if k != "other-key" && !key.MatchString(k) {
			t.Errorf("got key %q in Redis", k)
		}
	}
}

// monitor records every command that Redis receives from here on. The returned function
// stops that and returns the words of each command.
func (w *world) monitor(t *testing.T) func() [][]string {
	t.Helper()
	conn, err := net.Dial("tcp", w.redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	in := bufio.NewReaderSize(conn, 1<<20)
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // fails only on a closed connection
	if _, err := io.WriteString(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("MONITOR: got %q, %v, want +OK", line, err)
	}
	const end = "end-of-the-monitor"
	return func() [][]string {
		w.redis.Do(t, "ECHO", end)
		var commands [][]string
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			words := quotedWords(line)
			if len(words) == 2 && words[1] == end {
				return commands
			}
			if len(words) > 0 {
				commands = append(commands, words)
			}
		}
	}
}

// quotedWords returns the quoted words of a line of MONITOR.
func quotedWords(line string) []string {
	var words []string
	for {
		at := strings.IndexByte(line, '"')
		if at < 0 {
			return words
		}
		quoted, err := strconv.QuotedPrefix(line[at:])
		if err != nil {
			return words
		}
		word, _ := strconv.Unquote(quoted)
		words = append(words, word)
		line = line[at+len(quoted):]
	}
}
