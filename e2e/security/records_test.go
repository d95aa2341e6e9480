package security

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// newSessionKey returns the Redis key of the one session that f creates.
func (w *world) newSessionKey(t *testing.T, f func()) string {
	t.Helper()
	before := map[string]bool{}
	for _, key := range w.sessionKeys(t) {
		before[key] = true
	}
	f()
	var found []string
	for _, key := range w.sessionKeys(t) {
		if !before[key] {
			found = append(found, key)
		}
	}
	if len(found) != 1 {
		t.Fatalf("got %d new sessions, want 1", len(found))
	}
	return found[0]
}

// TestS51OldRecordIsReusedAtMostOnce: if an attacker restores an old record, at most one
// session ends, and the authorization server receives the spent refresh token at most
// once.
func TestS51OldRecordIsReusedAtMostOnce(t *testing.T) {
	w := sharedRedis(t)
	settled := func(t *testing.T, b *browser, reuses int) {
		t.Helper()
		deadline := time.Now().Add(waitLimit)
		for refreshes := w.refreshes(); ; {
			one, two := b.xhr(t, http.MethodGet, "/x").Status, b.at(1).xhr(t, http.MethodGet, "/x").Status
			ended := one == http.StatusUnauthorized && two == http.StatusUnauthorized
			// Or an instance detected the old record, and the session continues with newer
			// tokens.
			if ended || one == http.StatusOK && two == http.StatusOK && w.refreshes() > refreshes+1 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("got %d and %d, want the end or the refresh of the session", one, two)
				return
			}
		}
		for range 10 {
			b.at(1).trySend(t.Context(), http.MethodGet, sessionInfo, "", scriptHeaders...)
		}
		if n := w.idp.Stats().Reuses - reuses; n > 1 {
			t.Errorf("the authorization server got the spent refresh token %d times, want at most 1", n)
		}
		w.announceLifetime(3600)
		b.login(t, "/again")
	}
	t.Run("after a refresh", func(t *testing.T) {
		w.announceLifetime(2)
		b := w.browser()
		key := w.newSessionKey(t, func() { b.login(t, "/") })
		old, _ := w.redis.Do(t, "GET", key).(string)
		refreshes, reuses := w.refreshes(), w.idp.Stats().Reuses
		eventually(t, "refreshed record", func() bool {
			b.checkSession(t)
			now, _ := w.redis.Do(t, "GET", key).(string)
			return w.refreshes() > refreshes && now != old && w.redis.Do(t, "EXISTS", key+":lease") == int64(0)
		})
		w.redis.Do(t, "SET", key, old, "KEEPTTL")
		settled(t, b, reuses)
	})
	t.Run("during a refresh", func(t *testing.T) {
		w.announceLifetime(2)
		b := w.browser()
		key := w.newSessionKey(t, func() { b.login(t, "/") })
		old, _ := w.redis.Do(t, "GET", key).(string)
		reuses := w.idp.Stats().Reuses
		// The instance writes the new refresh token before it checks the ID token, and
		// that check needs a new key.
		w.idp.RotateKey()
		keysGate := fakeas.NewGate()
		w.idp.Fail(fakeas.Hold(keysGate).At(fakeas.EndpointJWKS))
		ctx, stop := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() {
			for ctx.Err() == nil {
				if _, err := b.trySend(ctx, http.MethodGet, "/x", "", scriptHeaders...); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
		eventually(t, "new refresh token in the store", func() bool {
			now, _ := w.redis.Do(t, "GET", key).(string)
			return now[:8] != old[:8]
		})
		stop()
		asking.Wait()
		w.redis.Do(t, "SET", key, old, "KEEPTTL")
		keysGate.Open()
		settled(t, b, reuses)
	})
}

// TestS52GarbageInTheStoreIsNoSession: an unreadable record counts as no session. Its
// browser can log in again, and no other session is affected.
func TestS52GarbageInTheStoreIsNoSession(t *testing.T) {
	t.Parallel()
	// A record has a header (version and expiry), then the sealed part: a head of 52
	// bytes, then the length of the hot part.
	const header, sealedHead = 16, 52
	t.Run("Redis", func(t *testing.T) {
		w := sharedRedis(t)
		b := w.browser()
		key := w.newSessionKey(t, func() { b.login(t, "/") })
		whole, _ := w.redis.Do(t, "GET", key).(string)
		values := map[string]string{
			"header alone": whole[:header], "no sealed body": whole[:header+sealedHead], "half": whole[:len(whole)/4],
			"10 MiB": whole[:header] + strings.Repeat("x", 10<<20), "other version": whole[:header] + "\xa5s\xff" + whole[header+3:],
			"huge hot part": whole[:header+sealedHead] + "\xff\xff\xff\xff" + whole[header+sealedHead+4:],
			"other expiry":  whole[:8] + "\x7f\xff\xff\xff" + whole[12:header+sealedHead+4] + strings.Repeat("x", 100),
			"altered":       altered(whole, header+sealedHead+30),
		}
		for _, n := range []int{0, 1, 15, 16, 17, 40} {
			values[fmt.Sprintf("%d bytes", n)] = strings.Repeat("\x80\x00\xff\x7f", 11)[:n]
		}
		for name, value := range values {
			t.Run(name, func(t *testing.T) {
				w.redis.Do(t, "SET", key, value, "KEEPTTL")
				defer func() {
					w.redis.Do(t, "SET", key, whole, "KEEPTTL")
					for i := range w.instances {
						eventually(t, "restored record", func() bool { return b.at(i).xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
					}
				}()
				for i := range w.instances {
					counted := w.instances[i].unreadableCount(t)
					var status int
					eventually(t, "answer for the changed record", func() bool {
						status = b.at(i).xhr(t, http.MethodGet, "/x").Status
						return status != http.StatusOK
					})
					if status != http.StatusUnauthorized {
						t.Errorf("instance %d: got %d, want 401", i+1, status)
					}
					// A record with an expiry in the past counts as missing.
					expired := len(value) >= header && value[header/2] >= 0x80
					if expired {
						continue
					}
					if n := w.instances[i].unreadableCount(t) - counted; n < 1 {
						t.Errorf("instance %d counted %v unreadable values, want at least 1", i+1, n)
					}
					if !strings.Contains(w.instances[i].Log(t), "what the store has does not open") {
						t.Errorf("instance %d did not log the unreadable value", i+1)
					}
				}
				if resp := b.nav(t, "/x"); !w.isAuthorization(resp.Location()) {
					t.Errorf("a navigation: got %d, want a login", resp.Status)
				}
			})
		}
	})
	// A request opens only the hot part, which has its own authentication tag.
	t.Run("cold part", func(t *testing.T) {
		w := sharedRedis(t)
		w.announceLifetime(2)
		b := w.browser()
		key := w.newSessionKey(t, func() { b.login(t, "/") })
		whole, _ := w.redis.Do(t, "GET", key).(string)
		w.redis.Do(t, "SET", key, whole[:len(whole)-1], "KEEPTTL")
		calls := w.tokenRequests()
		eventually(t, "end of the session", func() bool { return b.xhr(t, http.MethodGet, "/x").Status == http.StatusUnauthorized })
		if n := w.tokenRequests(); n != calls {
			t.Errorf("got %d token requests, want none", n-calls)
		}
	})
	t.Run("file", func(t *testing.T) {
		w := newWorld(t, plan{})
		b := w.browser()
		b.login(t, "/")
		w.instances[0].Stop(t)
		file := w.instances[0].sessionsFile()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		magic := []byte("\xa5s\x01\x01")
		if !bytes.Contains(content, magic) {
			t.Fatal("the file has no record")
		}
		// Damage the sealed part of every record.
		for at := range content {
			if bytes.HasPrefix(content[at:], magic) {
				for i := range 16 {
					content[at+70+i] ^= 0xff
				}
			}
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		w.instances[0].Restart(t)
		w.inspectAtEnd(t)
		b = b.at(0)
		w.checkRefused(t, b.xhr(t, http.MethodGet, "/x"))
		if w.instances[0].unreadableCount(t) == 0 || !strings.Contains(w.instances[0].Log(t), "what the store has does not open") {
			t.Error("the unreadable record is neither counted nor logged")
		}
		b.login(t, "/again")
	})
	t.Run("cookies that lead to nothing", func(t *testing.T) {
		w := sharedRedis(t)
		b := w.browser()
		counted := w.instances[0].unreadableCount(t)
		for i := range 20 {
			made := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{byte(i)}, 32))
			w.checkRefused(t, b.send(t, http.MethodGet, "/x", "", append(slices.Clone(scriptHeaders), "Cookie: "+sessionCookie+"="+made)...))
		}
		if n := w.instances[0].unreadableCount(t); n != counted {
			t.Errorf("made-up cookies: counted %v unreadable records, want none", n-counted)
		}
	})
}

// unreadableCount returns the number of unreadable values that an instance has found in
// the store.
func (in *instance) unreadableCount(t testing.TB) (n float64) {
	t.Helper()
	_, metrics := in.Admin(t, http.MethodGet, "/metrics", "")
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "caddy_oauth_session_unreadable_total{") {
			f, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			n += f
		}
	}
	return n
}
