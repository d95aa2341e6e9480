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

// TestS51OldRecordIsReusedAtMostOnce: if an attacker restores an old record after a refresh, at most one
// session ends, and the authorization server receives the spent refresh token at most once.
func TestS51OldRecordIsReusedAtMostOnce(t *testing.T) {
	w := sharedRedis(t)
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
	w.checkOldRecord(t, b, reuses)
}

// TestS51OldRecordDuringARefreshIsReusedAtMostOnce: the same holds if the record is restored while an
// instance refreshes.
func TestS51OldRecordDuringARefreshIsReusedAtMostOnce(t *testing.T) {
	w := sharedRedis(t)
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
	w.checkOldRecord(t, b, reuses)
}

// checkOldRecord checks that the session with a restored old record ends or continues with newer
// tokens, and that the authorization server got the spent refresh token at most once. reuses is the
// number of reuses before.
func (w *world) checkOldRecord(t *testing.T, b *browser, reuses int) {
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

// A record has a header (a version and an expiry, eight bytes each), then the sealed part: a head,
// then the length of the hot part. The constants are sizes in bytes.
const (
	recordVersion = 8
	recordHeader  = 16
	sealedHead    = 52
)

// TestS52GarbageInRedisIsNoSession: an unreadable record counts as no session. Its browser can log in
// again, and the metrics and the log report the record.
func TestS52GarbageInRedisIsNoSession(t *testing.T) {
	w := sharedRedis(t)
	b := w.browser()
	key := w.newSessionKey(t, func() { b.login(t, "/") })
	whole, _ := w.redis.Do(t, "GET", key).(string)
	for name, value := range garbageRecords(whole) {
		t.Run(name, func(t *testing.T) {
			w.redis.Do(t, "SET", key, value, "KEEPTTL")
			defer func() {
				w.redis.Do(t, "SET", key, whole, "KEEPTTL")
				for i := range w.instances {
					eventually(t, "restored record", func() bool { return b.at(i).xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
				}
			}()
			for i := range w.instances {
				w.checkGarbageAt(t, i, b, value)
			}
			if resp := b.nav(t, "/x"); !w.isAuthorization(resp.Location()) {
				t.Errorf("a navigation: got %d, want a login", resp.Status)
			}
		})
	}
}

// garbageRecords returns damaged forms of a record.
func garbageRecords(whole string) map[string]string {
	values := map[string]string{
		"header alone": whole[:recordHeader], "no sealed body": whole[:recordHeader+sealedHead], "half": whole[:len(whole)/4],
		"10 MiB": whole[:recordHeader] + strings.Repeat("x", 10<<20), "other version": whole[:recordHeader] + "\xa5s\xff" + whole[recordHeader+3:],
		"huge hot part": whole[:recordHeader+sealedHead] + "\xff\xff\xff\xff" + whole[recordHeader+sealedHead+4:],
		"other expiry":  whole[:recordVersion] + "\x7f\xff\xff\xff" + whole[recordVersion+4:recordHeader+sealedHead+4] + strings.Repeat("x", 100),
		"altered":       altered(whole, recordHeader+sealedHead+30),
	}
	for _, n := range []int{0, 1, 15, 16, 17, 40} {
		values[fmt.Sprintf("%d bytes", n)] = strings.Repeat("\x80\x00\xff\x7f", 11)[:n]
	}
	return values
}

// checkGarbageAt checks that an instance refuses the session of a garbage record and reports it.
func (w *world) checkGarbageAt(t *testing.T, i int, b *browser, value string) {
	t.Helper()
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
	if len(value) >= recordHeader && value[recordVersion] >= 0x80 {
		return
	}
	if n := w.instances[i].unreadableCount(t) - counted; n < 1 {
		t.Errorf("instance %d counted %v unreadable values, want at least 1", i+1, n)
	}
	if !strings.Contains(w.instances[i].Log(t), "a record in the store cannot be opened") {
		t.Errorf("instance %d did not log the unreadable value", i+1)
	}
}

// TestS52DamagedColdPartEndsTheSession: a request opens only the hot part, which has its own
// authentication tag. A refresh needs the cold part and ends the session if that is damaged.
func TestS52DamagedColdPartEndsTheSession(t *testing.T) {
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
}

// TestS52GarbageInTheFileIsNoSession: the same holds for the records of the file store.
func TestS52GarbageInTheFileIsNoSession(t *testing.T) {
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
	if w.instances[0].unreadableCount(t) == 0 || !strings.Contains(w.instances[0].Log(t), "a record in the store cannot be opened") {
		t.Error("the unreadable record is neither counted nor logged")
	}
	b.login(t, "/again")
}

// TestS52UnknownCookieIsNotGarbage: a made-up cookie does not count as an unreadable record.
func TestS52UnknownCookieIsNotGarbage(t *testing.T) {
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
