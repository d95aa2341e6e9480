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

// keyOf is the key of the one session in Redis that f makes.
func (w *world) keyOf(t *testing.T, f func()) string {
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
		t.Fatalf("%d new sessions, want one", len(found))
	}
	return found[0]
}

// TestS51Rollback: an old record put back costs one session at most, and the
// authorization server sees its spent refresh token once at most.
func TestS51Rollback(t *testing.T) {
	w := sharedRedis(t)
	settled := func(t *testing.T, b *browser, reuses int) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for refreshes := w.refreshes(); ; {
			one, two := b.xhr(t, http.MethodGet, "/x").Status, b.at(1).xhr(t, http.MethodGet, "/x").Status
			ended := one == http.StatusUnauthorized && two == http.StatusUnauthorized
			// Or it was found out, and the session goes on with newer tokens.
			if ended || one == http.StatusOK && two == http.StatusOK && w.refreshes() > refreshes+1 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("the session neither ends nor goes on: got %d and %d", one, two)
				return
			}
		}
		for range 10 {
			b.at(1).trySend(t.Context(), http.MethodGet, info, "", script...)
		}
		if n := w.idp.Stats().Reuses - reuses; n > 1 {
			t.Errorf("the spent refresh token came back %d times", n)
		}
		w.tell(3600)
		b.login(t, "/again")
	}
	t.Run("after a refresh", func(t *testing.T) {
		w.tell(2)
		b := w.browser()
		key := w.keyOf(t, func() { b.login(t, "/") })
		old, _ := w.redis.Do(t, "GET", key).(string)
		refreshes, reuses := w.refreshes(), w.idp.Stats().Reuses
		eventually(t, "refreshed record", func() bool {
			b.works(t)
			now, _ := w.redis.Do(t, "GET", key).(string)
			return w.refreshes() > refreshes && now != old && w.redis.Do(t, "EXISTS", key+":lease") == int64(0)
		})
		w.redis.Do(t, "SET", key, old, "KEEPTTL")
		settled(t, b, reuses)
	})
	t.Run("during a refresh", func(t *testing.T) {
		w.tell(2)
		b := w.browser()
		key := w.keyOf(t, func() { b.login(t, "/") })
		old, _ := w.redis.Do(t, "GET", key).(string)
		reuses := w.idp.Stats().Reuses
		// The new refresh token is written before the ID token is judged, for
		// which a key has to be fetched.
		w.idp.RotateKey()
		judged := fakeas.NewGate()
		w.idp.Fail(fakeas.Hold(judged).At(fakeas.EndpointJWKS))
		ctx, leave := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() {
			for ctx.Err() == nil {
				if _, err := b.trySend(ctx, http.MethodGet, "/x", "", script...); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
		eventually(t, "new refresh token in the store", func() bool {
			now, _ := w.redis.Do(t, "GET", key).(string)
			return now[:8] != old[:8]
		})
		leave()
		asking.Wait()
		w.redis.Do(t, "SET", key, old, "KEEPTTL")
		judged.Open()
		settled(t, b, reuses)
	})
}

// TestS52Garbage: a record that cannot be read is none (design.md: undecodable,
// unknown, foreign = no session). It neither keeps the session's browser from
// logging in nor troubles anybody else.
func TestS52Garbage(t *testing.T) {
	// Version and expiry stand before the sealed part, which has a head of 52
	// bytes and then the length of the hot part.
	const header, sealedHead = 16, 52
	t.Run("Redis", func(t *testing.T) {
		w := sharedRedis(t)
		b := w.browser()
		key := w.keyOf(t, func() { b.login(t, "/") })
		whole, _ := w.redis.Do(t, "GET", key).(string)
		values := map[string]string{
			"header alone": whole[:header], "no sealed body": whole[:header+sealedHead], "half": whole[:len(whole)/4],
			"10 MiB": whole[:header] + strings.Repeat("x", 10<<20), "other version": whole[:header] + "\xa5s\xff" + whole[header+3:],
			"huge hot part": whole[:header+sealedHead] + "\xff\xff\xff\xff" + whole[header+sealedHead+4:],
			"other expiry":  whole[:8] + "\x7f\xff\xff\xff" + whole[12:header+sealedHead+4] + strings.Repeat("x", 100),
			"altered":       flipped(whole, header+sealedHead+30),
		}
		for _, n := range []int{0, 1, 15, 16, 17, 40} {
			values[fmt.Sprintf("%d bytes", n)] = strings.Repeat("\x80\x00\xff\x7f", 11)[:n]
		}
		for name, value := range values {
			t.Run(name, func(t *testing.T) {
				w.redis.Do(t, "SET", key, value, "KEEPTTL")
				defer func() {
					w.redis.Do(t, "SET", key, whole, "KEEPTTL")
					for i := range w.p {
						eventually(t, "whole record", func() bool { return b.at(i).xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
					}
				}()
				for i := range w.p {
					told := w.p[i].unreadable(t)
					var status int
					eventually(t, "news of the record", func() bool {
						status = b.at(i).xhr(t, http.MethodGet, "/x").Status
						return status != http.StatusOK
					})
					if status != http.StatusUnauthorized {
						t.Errorf("instance %d: got %d, want 401", i+1, status)
					}
					// With an expiry that has passed it is not there.
					expired := len(value) >= header && value[header/2] >= 0x80
					if !expired && w.p[i].unreadable(t) <= told || !strings.Contains(w.p[i].Log(t), "a record in the store cannot be opened") {
						t.Errorf("instance %d does not tell of it", i+1)
					}
				}
				if resp := b.nav(t, "/x"); !w.isAuthorization(resp.Location()) {
					t.Errorf("a navigation: got %d, want a login", resp.Status)
				}
			})
		}
	})
	// A request opens the hot part only, which is authenticated for itself.
	t.Run("cold part", func(t *testing.T) {
		w := sharedRedis(t)
		w.tell(2)
		b := w.browser()
		key := w.keyOf(t, func() { b.login(t, "/") })
		whole, _ := w.redis.Do(t, "GET", key).(string)
		w.redis.Do(t, "SET", key, whole[:len(whole)-1], "KEEPTTL")
		calls := w.tokenCalls()
		eventually(t, "end of the session", func() bool { return b.xhr(t, http.MethodGet, "/x").Status == http.StatusUnauthorized })
		if n := w.tokenCalls(); n != calls {
			t.Errorf("%d token requests", n-calls)
		}
	})
	t.Run("file", func(t *testing.T) {
		w := newWorld(t, plan{})
		b := w.browser()
		b.login(t, "/")
		w.p[0].Stop(t)
		file := w.p[0].sessionsFile()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		magic := []byte("\xa5s\x01\x01")
		if !bytes.Contains(content, magic) {
			t.Fatal("no record in the file")
		}
		// Every record is spoiled, in its sealed part.
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
		w.p[0].Restart(t)
		w.inspectFirst(t)
		b = b.at(0)
		w.refused(t, b.xhr(t, http.MethodGet, "/x"))
		if w.p[0].unreadable(t) == 0 || !strings.Contains(w.p[0].Log(t), "a record in the store cannot be opened") {
			t.Error("nothing tells of it")
		}
		b.login(t, "/again")
	})
	t.Run("cookies that lead to nothing", func(t *testing.T) {
		w := sharedRedis(t)
		b := w.browser()
		told := w.p[0].unreadable(t)
		for i := range 20 {
			made := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{byte(i)}, 32))
			w.refused(t, b.send(t, http.MethodGet, "/x", "", append(slices.Clone(script), "Cookie: "+sessionCookie+"="+made)...))
		}
		if n := w.p[0].unreadable(t); n != told {
			t.Errorf("made-up cookies count as %v records that do not open", n-told)
		}
	})
}

// unreadable returns how often something in the store did not open.
func (in *instance) unreadable(t testing.TB) (n float64) {
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
