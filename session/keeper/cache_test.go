package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestUnchangedSessionIsReadOnce: later requests use the cache until a write.
func TestUnchangedSessionIsReadOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		views := func() int {
			r.store.mu.Lock()
			defer r.store.mu.Unlock()
			return r.store.counts[opView]
		}
		for range 3 {
			r.fresh(secret)
		}
		if n := views(); n != 1 {
			t.Errorf("got %d reads for three requests, want 1", n)
		}
		before := r.fresh(secret).AccessToken
		r.waitUntilDue()
		r.fresh(secret) // starts a refresh
		time.Sleep(time.Second)
		if after := r.fresh(secret).AccessToken; after == before {
			t.Error("got the old token after the refresh")
		}
		n := views()
		for range 3 {
			r.fresh(secret)
		}
		if got := views(); got != n {
			t.Errorf("got %d reads after the refresh was read, want none", got-n)
		}
	})
}

// TestCacheEntryIsRemoved a while after its last use, and at once when the session ends or
// its key is removed.
func TestCacheEntryIsRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		unused, _ := r.login()
		used, _ := r.login()
		ended, _ := r.login()
		for _, secret := range []seal.Secret{unused, used, ended} {
			r.fresh(secret)
		}
		if _, err := r.keeper.End(t.Context(), ended, EndLogout); err != nil {
			t.Fatal(err)
		}
		if e, _ := r.vault.cache.get(r.id(ended)); e != nil {
			t.Error("got a cache entry of an ended session")
		}
		for range 4 {
			time.Sleep(cacheAge / 2)
			r.fresh(used)
		}
		time.Sleep(time.Second)
		r.fresh(used) // the write of its use has removed the entry
		for secret, want := range map[seal.Secret]bool{unused: false, used: true, ended: false} {
			if e, _ := r.vault.cache.get(r.id(secret)); (e != nil) != want {
				t.Errorf("got a cache entry: %v, want %v", e != nil, want)
			}
		}
		other, err := seal.NewKeyRing(seal.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		r.keeper.Site.SetKeys(other)
		if _, err := r.keeper.Fresh(t.Context(), used); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh without the key: got error %v, want ErrNoSession", err)
		}
	})
}

// TestCacheEntryIsNotServedAfterAWriteOfAnotherInstance.
func TestCacheEntryIsNotServedAfterAWriteOfAnotherInstance(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.freshAt(0, secret)
		time.Sleep(time.Second)
		s, err := r.keepers[1].FreshSince(t.Context(), secret, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := r.freshAt(0, secret).AccessToken; got != s.AccessToken {
			t.Errorf("got token %q, want %q", got, s.AccessToken)
		}
	})
}

// TestCacheEntryIsValidatedOncePerSecond, and at once after a notification of a change. A
// change without a notification is found within that second.
func TestCacheEntryIsValidatedOncePerSecond(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		here, views := r.users[0], 0
		here.setFault(func(op sharedOp) storeFault {
			if op == sharedView {
				views++
			}
			return storeFault{}
		})
		// validates reports whether a request reads from the store, which has no copy.
		validates := func() bool {
			here.mu.Lock()
			clear(here.copies)
			here.mu.Unlock()
			before := views
			r.freshAt(0, secret)
			return views > before
		}
		refreshThere := func() string {
			time.Sleep(2 * minRefreshInterval)
			r.freshAt(0, secret)
			s, err := r.keepers[1].FreshSince(t.Context(), secret, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return s.AccessToken
		}
		for range 2 {
			if first, second := validates(), validates(); !first || second {
				t.Errorf("got validations %v, %v, want the first request alone to validate", first, second)
			}
			time.Sleep(cacheTrust)
		}
		r.freshAt(0, secret)
		if want, got := refreshThere(), r.freshAt(0, secret).AccessToken; got != want {
			t.Errorf("after a change with a notification: got token %q, want %q", got, want)
		}
		here.missesPushes = true
		want := refreshThere()
		time.Sleep(cacheTrust)
		if !validates() {
			t.Error("after a change without a notification: got no validation within a second")
		}
		if got := r.freshAt(0, secret).AccessToken; got != want {
			t.Errorf("after a change without a notification: got token %q, want %q", got, want)
		}
	})
}

// TestLogoutElsewhereInvalidatesAReadInProgress: the notification arrives while a request
// reads the record, which is from before the logout. No later request may use it.
func TestLogoutElsewhereInvalidatesAReadInProgress(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		here := r.users[0]
		here.setFault(func(op sharedOp) storeFault {
			if op == sharedView {
				return storeFault{after: time.Second / 2}
			}
			return storeFault{}
		})
		go func() { _, _ = r.keepers[0].Fresh(t.Context(), secret) }()
		time.Sleep(time.Second / 4)
		if _, err := r.keepers[1].End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second / 2)
		here.setFault(nil)
		if _, err := r.keepers[0].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("Fresh after the logout: got error %v, want ErrNoSession", err)
		}
	})
}

// TestReadDuringADeletionIsNotCached: a request that began before a logout reads the record
// during its deletion. No later request gets it, also after the process has forgotten the
// end.
func TestReadDuringADeletionIsNotCached(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.store.faultOnce(opDelete, 1, storeFault{before: time.Second})
		go func() {
			time.Sleep(time.Second / 2)
			// readCached, as if the request had looked for an end before the logout.
			_, _ = r.keeper.readCached(t.Context(), seal.Ref{ID: r.id(secret), Secret: secret}, 0)
		}()
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		time.Sleep(endRetention + time.Second)
		r.wantGone(secret)
	})
}

// TestOldCacheEntryDoesNotRepeatWritesOfUses: a write of a use returns an error but is done.
// A cache entry from before it must not make each request write the use again.
func TestOldCacheEntryDoesNotRepeatWritesOfUses(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.useLongTokens()
		secret, _ := r.login()
		time.Sleep(2 * maxUseInterval)
		r.fresh(secret)
		synctest.Wait()
		id := r.id(secret)
		stale, writes := r.vault.cache.get(id)
		if stale == nil {
			r.fresh(secret)
			stale, writes = r.vault.cache.get(id)
		}
		// The entry as it was before the use.
		behind := &cacheEntry{hot: stale.hot, keyID: stale.keyID, version: stale.version - 1}
		behind.hot.lastUsed = behind.hot.lastUsed.Add(-2 * maxUseInterval)
		r.vault.cache.put(id, behind, writes)
		r.fresh(secret)
		synctest.Wait()
		r.fresh(secret)
		if now, _ := r.vault.cache.get(id); now == nil || now == behind {
			t.Error("got the cache entry from before the use, want it replaced")
		}
	})
}

// TestAlteredItemDoesNotMatchTheCacheEntry: the keeper opens an altered item of a shared
// store again, though its version is the same.
func TestAlteredItemDoesNotMatchTheCacheEntry(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.freshAt(0, secret)
		id := r.id(secret)
		r.state.mu.Lock()
		item := r.state.items[id]
		item.Value = bytes.Clone(item.Value)
		item.Value[len(item.Value)-1]++
		r.state.items[id] = item
		r.state.mu.Unlock()
		r.users[0].dropCopies()
		// The cold part was altered, so the hot part still opens.
		before, _ := r.keepers[0].Vault.cache.get(id)
		r.freshAt(0, secret)
		if now, _ := r.keepers[0].Vault.cache.get(id); now == before {
			t.Error("got the cache entry of the item before its alteration")
		}
	})
}

// TestCacheStaysWithinItsSize for any number and size of records, and keeps the newest.
func TestCacheStaysWithinItsSize(t *testing.T) {
	var c recordCache
	claims := json.RawMessage(strings.Repeat("x", 10_000))
	for n := range 20_000 {
		id := session.ID{byte(n), byte(n >> 8), byte(n >> 16)}
		_, writes := c.get(id)
		c.put(id, &cacheEntry{hot: hot{claims: claims[:n%len(claims)]}}, writes)
		if e, _ := c.get(id); e == nil {
			t.Fatalf("got no entry %d right after put", n)
		}
	}
	size := 0
	for i := range c.shards {
		young := 0
		for _, e := range c.shards[i].young {
			young += e.size()
		}
		if young != c.shards[i].size {
			t.Errorf("shard %d: got size %d, want %d", i, c.shards[i].size, young)
		}
		for _, e := range c.shards[i].old {
			size += e.size()
		}
		size += young
	}
	if size > cacheMaxBytes || size < cacheMaxBytes/4 {
		t.Errorf("got %d bytes, want between %d and %d", size, cacheMaxBytes/4, cacheMaxBytes)
	}
	c.aging.Stop()
}

// TestRecordReadBeforeAWriteIsNotCachedAfterIt.
func TestRecordReadBeforeAWriteIsNotCachedAfterIt(t *testing.T) {
	var c recordCache
	id := session.ID{1}
	_, writes := c.get(id)
	c.forget(id)
	c.put(id, &cacheEntry{version: 1}, writes)
	if e, _ := c.get(id); e != nil {
		t.Errorf("got version %d after the write of the next, want no entry", e.version)
	}
}

// TestNoOldTokenAfterACommit: once a commit or a logout has returned, no request gets the
// state before it, while others read at the same time.
func TestNoOldTokenAfterACommit(t *testing.T) {
	r := newRig(t)
	secret, _ := r.login()
	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	for range 4 {
		reading.Go(func() {
			for ctx.Err() == nil {
				_, _ = r.keeper.Peek(ctx, secret)
			}
		})
	}
	for i := range 300 {
		rec, err := r.keeper.read(ctx, seal.Ref{ID: r.id(secret), Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		rec.rotation++
		rec.token.value = fmt.Sprint("token ", i)
		if err := r.keeper.commit(ctx, seal.Ref{ID: r.id(secret), Secret: secret}, rec); err != nil {
			t.Fatal(err)
		}
		if s, err := r.keeper.Peek(ctx, secret); err != nil || s.AccessToken != rec.token.value {
			t.Fatalf("Peek after a commit: got %v, %v, want token %q", s, err, rec.token.value)
		}
	}
	if _, err := r.keeper.End(ctx, secret, EndLogout); err != nil {
		t.Fatal(err)
	}
	if _, err := r.keeper.Peek(ctx, secret); !errors.Is(err, ErrNoSession) {
		t.Errorf("Peek after the logout: got error %v, want ErrNoSession", err)
	}
	stop()
	reading.Wait()
}
