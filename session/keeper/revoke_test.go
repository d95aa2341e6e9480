package keeper

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// wantReasons checks the reasons of all ends so far.
func (r *rig) wantReasons(want EndReason, n int) {
	r.t.Helper()
	r.events.mu.Lock()
	defer r.events.mu.Unlock()
	got := 0
	for _, e := range r.events.all {
		if e.Kind == EventEnded && e.Reason == want {
			got++
		}
	}
	if got != n {
		r.t.Errorf("got %d events of an end with reason %q, want %d", got, want, n)
	}
}

// TestRevocationEndsTheSessionsItNames and their requests in progress, and no others.
func TestRevocationEndsTheSessionsItNames(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(ctx context.Context, s Sites, first session.ID) (int, error)
		ends []int // of: alice, alice an hour later, bob an hour later
	}{
		"one": {func(ctx context.Context, s Sites, first session.ID) (int, error) {
			found, err := s.EndByID(ctx, first)
			if again, _ := s.EndByID(ctx, first); again || !found {
				return -1, err
			}
			return 1, err
		}, []int{0}},
		"unknown": {func(ctx context.Context, s Sites, _ session.ID) (int, error) {
			found, err := s.EndByID(ctx, session.ID{1, 2, 3})
			if found {
				return -1, err
			}
			return 0, err
		}, nil},
		"user":         {func(ctx context.Context, s Sites, _ session.ID) (int, error) { return s.EndUser(ctx, "alice") }, []int{0, 1}},
		"unknown user": {func(ctx context.Context, s Sites, _ session.ID) (int, error) { return s.EndUser(ctx, "carol") }, nil},
		"name of user": {func(ctx context.Context, s Sites, _ session.ID) (int, error) {
			return s.EndUser(ctx, "family000@example.com")
		}, nil},
		"older": {func(ctx context.Context, s Sites, _ session.ID) (int, error) {
			return s.EndOlderThan(ctx, 30*time.Minute)
		}, []int{0}},
		"exactly": {func(ctx context.Context, s Sites, _ session.ID) (int, error) { return s.EndOlderThan(ctx, time.Hour) }, []int{0}},
		"too old": {func(ctx context.Context, s Sites, _ session.ID) (int, error) { return s.EndOlderThan(ctx, 2*time.Hour) }, nil},
		"all":     {func(ctx context.Context, s Sites, _ session.ID) (int, error) { return s.EndOlderThan(ctx, 0) }, []int{0, 1, 2}},
		"none": {func(ctx context.Context, s Sites, first session.ID) (int, error) {
			n, err := Sites(nil).EndUser(ctx, "alice")
			m, _ := Sites(nil).EndOlderThan(ctx, 0)
			return n + m, err
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secrets := []seal.Secret{r.loginFrom(r.keeper, "alice", "")}
				time.Sleep(time.Hour)
				secrets = append(secrets, r.loginFrom(r.keeper, "alice", ""), r.loginFrom(r.keeper, "bob", ""))
				var live []context.Context
				for _, secret := range secrets {
					ctx, attached := attach(r.keeper, t.Context(), r.fresh(secret))
					defer attached.Detach()
					live = append(live, ctx)
				}
				if n, err := tt.end(t.Context(), Sites{r.keeper}, r.id(secrets[0])); n != len(tt.ends) || err != nil {
					t.Errorf("got %d and error %v, want %d ended sessions", n, err, len(tt.ends))
				}
				ended := map[int]bool{}
				for _, i := range tt.ends {
					ended[i] = true
					r.wantGone(secrets[i])
				}
				for i, ctx := range live {
					if got := errors.Is(context.Cause(ctx), ErrNoSession); got != ended[i] {
						t.Errorf("request of session %d: got ended %v, want %v", i, got, ended[i])
					}
					if !ended[i] {
						r.fresh(secrets[i])
					}
				}
				r.wantReasons(EndRevoked, len(tt.ends))
			})
		})
	}
}

// TestRevocationReachesAllInstances: requests in progress end there, and a refresh that is
// in progress there does not restore the session.
func TestRevocationReachesAllInstances(t *testing.T) {
	inBubbleWithInstances(t, 3, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		var live []context.Context
		for i := range r.keepers {
			ctx, attached := attach(r.keepers[i], t.Context(), r.freshAt(i, secret))
			defer attached.Detach()
			live = append(live, ctx)
		}
		r.server.set(func() { r.server.latency = 2 * time.Second })
		r.waitUntilExpired()
		refreshing := make(chan error, 1)
		go func() {
			_, err := r.keepers[1].Fresh(context.Background(), secret)
			refreshing <- err
		}()
		time.Sleep(time.Second)
		sites := Sites{r.keepers[2]}
		if n, err := sites.EndOlderThan(t.Context(), 0); n != 1 || err != nil {
			t.Fatalf("EndOlderThan: got %d, %v, want 1", n, err)
		}
		synctest.Wait()
		for i, ctx := range live {
			if !errors.Is(context.Cause(ctx), ErrNoSession) {
				t.Errorf("request at instance %d: got cause %v, want ErrNoSession", i, context.Cause(ctx))
			}
		}
		if err := <-refreshing; !errors.Is(err, ErrNoSession) {
			t.Errorf("request that waited for a refresh: got error %v, want ErrNoSession", err)
		}
		for i := range r.keepers {
			if _, err := r.keepers[i].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("instance %d: got error %v, want ErrNoSession", i, err)
			}
		}
	})
}

// TestRevocationIsRepeatedAfterAFailure of the store: the session may be alive at other
// instances, so the caller gets an error, and the next call ends it.
func TestRevocationIsRepeatedAfterAFailure(t *testing.T) {
	inBubbleWithInstances(t, 2, func(t *testing.T, r *instances) {
		secret, _ := r.login()
		r.freshAt(0, secret)
		r.users[0].refusing(sharedDelete, sharedDeleteAt)
		sites, id := Sites{r.keepers[0]}, r.id(secret)
		var unavailable *UnavailableError
		if _, err := sites.EndByID(t.Context(), id); !errors.As(err, &unavailable) {
			t.Errorf("EndByID: got error %v, want an *UnavailableError", err)
		}
		r.freshAt(1, secret)
		r.users[0].setFault(nil)
		if found, err := sites.EndByID(t.Context(), id); !found || err != nil {
			t.Errorf("second EndByID: got %v, %v, want true", found, err)
		}
		synctest.Wait()
		if _, err := r.keepers[1].Fresh(t.Context(), secret); !errors.Is(err, ErrNoSession) {
			t.Errorf("other instance: got error %v, want ErrNoSession", err)
		}
	})
}

// TestRevocationStopsWithItsContext, and returns the number of sessions that have ended.
func TestRevocationStopsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const all = session.MaxListed + 200
		for range all {
			r.loginFrom(r.keeper, "alice", "")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var deleted atomic.Int64
		r.store.setFault(func(op storeOp) storeFault {
			if op == opDelete && deleted.Add(1) == 100 {
				cancel()
			}
			return storeFault{}
		})
		n, err := Sites{r.keeper}.EndOlderThan(ctx, 0)
		if !errors.Is(err, context.Canceled) || n < 100 || n > 100+maxConcurrentEnds {
			t.Errorf("got %d and error %v, want about 100 and the error of the context", n, err)
		}
		r.store.clearFaults()
		if rest, err := (Sites{r.keeper}).EndOlderThan(t.Context(), 0); n+rest != all || err != nil {
			t.Errorf("second call: got %d and error %v, want %d", rest, err, all-n)
		}
	})
}

// TestNoticeIsReadOnce, by the browser of the session alone, and for an hour.
func TestNoticeIsReadOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		sites := Sites{r.keeper}
		end := func(secret seal.Secret) {
			t.Helper()
			if found, err := sites.EndByID(t.Context(), r.id(secret)); !found || err != nil {
				t.Fatalf("EndByID: got %v, %v", found, err)
			}
		}
		first, second, loggedOut := r.loginFrom(r.keeper, "alice", ""), r.loginFrom(r.keeper, "alice", ""), r.loginAs(r.keeper, "bob", "1")
		end(first)
		end(second)
		r.serverLogout(r.keeper, r.newLogout("bob", ""), 1)
		want := func(name string, secret seal.Secret, want EndReason) {
			t.Helper()
			if got := r.keeper.TakeEndNotice(t.Context(), secret); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		want("invented cookie", testSecret(99), "")
		want("logout by the server", loggedOut, "")
		want("first look", first, EndRevoked)
		want("second look", first, "")
		r.store.fail(opDelete)
		want("notice that cannot be removed", second, "")
		r.store.fail(opView)
		want("store down", second, "")
		r.store.clearFaults()
		time.Sleep(noticeRetention)
		want("after an hour", second, "")
	})
}

// TestForgedNoticeIsIgnored: someone with write access to the store cannot choose the text.
func TestForgedNoticeIsIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.loginFrom(r.keeper, "alice", "")
		notice := r.keeper.noticeID(r.id(secret))
		good, err := r.config.Site.SealLabel(r.id(secret), []byte(EndRevoked))
		if err != nil {
			t.Fatal(err)
		}
		other, err := r.config.Site.SealLabel(notice, []byte("click here"))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string][]byte{"plain": []byte(EndRevoked), "moved": good, "another reason": other, "empty": nil} {
			r.store.put(notice, session.Item{Version: 1, Expires: time.Now().Add(time.Hour), Value: value})
			if got := r.keeper.TakeEndNotice(t.Context(), secret); got != "" {
				t.Errorf("%s: got %q, want no reason", name, got)
			}
		}
	})
}

// TestRevocationOfNothingWritesNothing: an ID without a session leaves no notice.
func TestRevocationOfNothingWritesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range byte(10) {
			if found, err := (Sites{r.keeper}).EndByID(t.Context(), session.ID{i}); found || err != nil {
				t.Errorf("got %v, %v, want false", found, err)
			}
		}
		if n := r.store.completed(opCreate); n != 0 {
			t.Errorf("got %d written items, want none", n)
		}
	})
}
