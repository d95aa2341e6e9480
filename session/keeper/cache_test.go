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

// TestOpenedOnce: requests that follow each other ask neither the store nor the
// ciphers, until something is written.
func TestOpenedOnce(t *testing.T) {
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
			t.Errorf("three requests have asked the store %d times", n)
		}
		before := r.fresh(secret).AccessToken
		r.due()
		r.fresh(secret) // begins a refresh
		time.Sleep(time.Second)
		if after := r.fresh(secret).AccessToken; after == before {
			t.Error("the old token is served after the refresh")
		}
		n := views()
		for range 3 {
			r.fresh(secret)
		}
		if views() != n {
			t.Error("what was read after the refresh is not kept")
		}
	})
}

// TestOpenedIsForgotten when nobody has used it for a while, and at once when
// the session ends or its key is dropped.
func TestOpenedIsForgotten(t *testing.T) {
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
		if o, _ := r.vault.cache.get(r.id(ended)); o != nil {
			t.Error("what has ended is still in the clear")
		}
		for range 4 {
			time.Sleep(cacheAge / 2)
			r.fresh(used)
		}
		time.Sleep(time.Second)
		r.fresh(used) // its use has just been written
		for secret, want := range map[seal.Secret]bool{unused: false, used: true, ended: false} {
			if o, _ := r.vault.cache.get(r.id(secret)); (o != nil) != want {
				t.Errorf("in the clear: %v, want %v", o != nil, want)
			}
		}
		other, err := seal.NewKeyRing(seal.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		r.keeper.Site.SetKeys(other)
		if _, err := r.keeper.Fresh(t.Context(), used); !errors.Is(err, ErrNoSession) {
			t.Errorf("without its key: %v", err)
		}
	})
}

// TestOpenedByOneInstance is not served when another has written since.
func TestOpenedByOneInstance(t *testing.T) {
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
			t.Errorf("the first instance serves %q, the other has got %q", got, s.AccessToken)
		}
	})
}

// TestOpenedIsTrustedForAMoment: a shared store is asked once a second, and at
// once when it has told of a change. A change that it does not tell of is found
// within that second.
func TestOpenedIsTrustedForAMoment(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		here, views := r.users[0], 0
		here.setFault(func(op sharedOp) storeFault {
			if op == sharedView {
				views++
			}
			return storeFault{}
		})
		// asks reports whether a request asks the store, which has no copy at hand.
		asks := func() bool {
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
		if !asks() || asks() {
			t.Error("not the first request alone has asked")
		}
		time.Sleep(cacheTrust)
		if !asks() || asks() {
			t.Error("after a second, not the first request alone has asked")
		}
		if want, got := refreshThere(), r.freshAt(0, secret).AccessToken; got != want {
			t.Errorf("after a change that the store told of: %q, want %q", got, want)
		}
		here.missesPushes = true
		want := refreshThere()
		time.Sleep(cacheTrust)
		if !asks() {
			t.Error("after a change that the store did not tell of, nobody has asked for a second")
		}
		if got := r.freshAt(0, secret).AccessToken; got != want {
			t.Errorf("after a change that the store did not tell of: %q, want %q", got, want)
		}
	})
}

// TestOpenedWhileItEndsElsewhere: the news of a logout at another instance arrives
// while a request looks at the store. What that sees is of before, and is not
// trusted after.
func TestOpenedWhileItEndsElsewhere(t *testing.T) {
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
			t.Errorf("after the logout: %v", err)
		}
	})
}

// TestOpenedWhileItEnds: a request that began before a logout reads the record
// while its deletion is under way. Nobody is served that later, when this process
// no longer remembers the end.
func TestOpenedWhileItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.store.faultOnce(opDelete, 1, storeFault{before: time.Second})
		go func() {
			time.Sleep(time.Second / 2)
			_, _ = r.keeper.readCached(t.Context(), seal.Ref{ID: r.id(secret), Secret: secret}, 0) // it has looked for an end before
		}()
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		time.Sleep(endRetention + time.Second)
		r.gone(secret)
	})
}

// TestOpenedBehindAUse: the writing of a use is reported to fail and lands all
// the same. What is kept opened must not make each request write it again.
func TestOpenedBehindAUse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.longTokens()
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
		// As it was before the use.
		behind := &cacheEntry{hot: stale.hot, keyID: stale.keyID, version: stale.version - 1}
		behind.hot.lastUsed = behind.hot.lastUsed.Add(-2 * maxUseInterval)
		r.vault.cache.put(id, behind, writes)
		r.fresh(secret)
		synctest.Wait()
		r.fresh(secret)
		if now, _ := r.vault.cache.get(id); now == nil || now == behind {
			t.Error("what is behind the store is served for ever")
		}
	})
}

// TestOpenedAndAltered: what another hand has written into a shared store does
// not open, also for who has opened what was there before.
func TestOpenedAndAltered(t *testing.T) {
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
		// The hot part is as it was, so it may open; it must be opened again.
		known, _ := r.keepers[0].Vault.cache.get(id)
		r.freshAt(0, secret)
		if now, _ := r.keepers[0].Vault.cache.get(id); now == known {
			t.Error("the item is not the one that was opened")
		}
	})
}

// TestOpenedBounds: however many sessions and however large, what is kept of
// them stays within the bound, and the newest is there.
func TestOpenedBounds(t *testing.T) {
	var r recordCache
	claims := json.RawMessage(strings.Repeat("x", 10_000))
	for n := range 20_000 {
		id := session.ID{byte(n), byte(n >> 8), byte(n >> 16)}
		_, writes := r.get(id)
		r.put(id, &cacheEntry{hot: hot{claims: claims[:n%len(claims)]}}, writes)
		if o, _ := r.get(id); o == nil {
			t.Fatalf("entry %d is not there", n)
		}
	}
	size := 0
	for i := range r.shards {
		young := 0
		for _, o := range r.shards[i].young {
			young += o.size()
		}
		if young != r.shards[i].size {
			t.Errorf("shard %d counts %d bytes, and has %d", i, r.shards[i].size, young)
		}
		for _, o := range r.shards[i].old {
			size += o.size()
		}
		size += young
	}
	if size > cacheMaxBytes || size < cacheMaxBytes/4 {
		t.Errorf("%d bytes are kept, the bound is %d", size, cacheMaxBytes)
	}
	r.aging.Stop()
}

// TestOpenedBeforeAWrite: what was read before a write is not put back after it.
func TestOpenedBeforeAWrite(t *testing.T) {
	var r recordCache
	id := session.ID{1}
	_, writes := r.get(id)
	r.forget(id)
	r.put(id, &cacheEntry{version: 1}, writes)
	if o, _ := r.get(id); o != nil {
		t.Errorf("version %d is served after the write of the next", o.version)
	}
}

// TestNoOldTokenUnderLoad: once a refresh or a logout has returned, nobody is
// served what was before, however many read at the same time.
func TestNoOldTokenUnderLoad(t *testing.T) {
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
			t.Fatalf("after the commit of %q: %v, %v", rec.token.value, s, err)
		}
	}
	if _, err := r.keeper.End(ctx, secret, EndLogout); err != nil {
		t.Fatal(err)
	}
	if _, err := r.keeper.Peek(ctx, secret); !errors.Is(err, ErrNoSession) {
		t.Errorf("after the logout: %v", err)
	}
	stop()
	reading.Wait()
}
