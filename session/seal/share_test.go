package seal

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestKeysRotateInstanceByInstance changes the keys of three instances from [A] through
// [B, A] to [B], one instance after another, under traffic, with restarts and a store
// that answers late. Every sealed value opens at every instance at that moment, and
// earlier values open until the old key is dropped.
func TestKeysRotateInstanceByInstance(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) { rotateKeys(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func rotateKeys(t *testing.T, random *rand.Rand) {
	a, b := testKey(1), testKey(2)
	board := newBoard()
	late := func() time.Duration { return time.Duration(random.IntN(1500)) * time.Millisecond }
	var users []*instance
	for range 3 {
		users = append(users, startInstance(t, board, late(), nil, a))
	}
	var kept []sealedPair
	traffic := func(d time.Duration, all bool) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond) {
			for _, u := range users {
				s := u.seal()
				for _, other := range users {
					other.opens(s)
				}
				kept = append(kept[max(0, len(kept)-11):], s)
			}
			for _, s := range kept {
				if all {
					users[random.IntN(len(users))].opens(s)
				}
			}
		}
	}
	// change gives one instance other keys: at run time, by a restart, or after a
	// crash.
	change := func(i int, keys ...Key) {
		switch random.IntN(3) {
		case 0:
			users[i].setKeys(keys...)
			return
		case 1:
			users[i].stop()
		case 2:
			users[i].kill()
		}
		users[i] = startInstance(t, board, late(), nil, keys...)
	}
	traffic(time.Second, true)
	for _, i := range random.Perm(len(users)) {
		change(i, b, a)
		traffic(time.Duration(random.IntN(12))*time.Second, true)
	}
	// The announcement of a crashed instance expires after a minute.
	traffic(time.Minute+2*announceEvery, true)
	for _, u := range users {
		u.wantSealsWith(b)
	}
	for _, i := range random.Perm(len(users)) {
		change(i, b)
		traffic(time.Duration(random.IntN(12))*time.Second, false)
	}
	for _, u := range users {
		u.wantSealsWith(b)
	}
}

// TestNothingIsSealedBeforeTheAnswer of the store: an instance that starts with [B, A]
// cannot know whether the others have [A] or already [B].
func TestNothingIsSealedBeforeTheAnswer(t *testing.T) {
	a, b := testKey(1), testKey(2)
	for _, have := range []Key{a, b} {
		synctest.Test(t, func(t *testing.T) {
			board := newBoard()
			startInstance(t, board, 0, nil, have)
			synctest.Wait()
			start := time.Now()
			u := startInstance(t, board, 0, errBoardDown, b, a)
			if _, err := u.site.sealing(); !errors.Is(err, ErrNotAgreed) {
				t.Errorf("before an answer: got error %v, want ErrNotAgreed", err)
			}
			if waited := time.Since(start); waited != 0 {
				t.Errorf("waited %v for a store that has failed, want 0s", waited)
			}
			if _, err := u.site.SealForBrowser("login", nil); !errors.Is(err, ErrNotAgreed) {
				t.Errorf("a login cookie before an answer: got error %v, want ErrNotAgreed", err)
			}
			u.store.set(0, nil)
			time.Sleep(announceRetry)
			synctest.Wait()
			u.wantSealsWith(have)
		})
	}
}

// TestSealingWaitsForTheAnswer for at most agreementWait, and not at all with one key.
func TestSealingWaitsForTheAnswer(t *testing.T) {
	a, b := testKey(1), testKey(2)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		start := time.Now()
		startInstance(t, board, time.Second, nil, b, a).wantSealsWith(b)
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("sealed after %v, want 1s, when the store answers", waited)
		}
		start = time.Now()
		startInstance(t, board, 4*time.Second, nil, b).wantSealsWith(b)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("sealed after %v with one key, want 0s", waited)
		}
		u := startInstance(t, board, 4*time.Second, nil, b, a)
		start = time.Now()
		if _, err := u.site.sealing(); !errors.Is(err, ErrNotAgreed) || time.Since(start) != agreementWait {
			t.Errorf("got error %v after %v, want ErrNotAgreed after %v", err, time.Since(start), agreementWait)
		}
	})
}

// TestChangedKeysWaitForTheAnswer: the last announcements of the others may be old, and
// another instance may have started since.
func TestChangedKeysWaitForTheAnswer(t *testing.T) {
	a, b, c := testKey(1), testKey(2), testKey(3)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		u := startInstance(t, board, 0, nil, a)
		synctest.Wait() // until it has announced its keys
		other := startInstance(t, board, 0, nil, a)
		synctest.Wait()
		u.setKeys(b, a)
		u.wantSealsWith(a)
		synctest.Wait()
		if calls := u.store.count(); calls != 2 {
			t.Errorf("got %d calls of Announce, want 2, the second at once", calls)
		}
		u.wantSealsWith(a)
		other.setKeys(b, a)
		time.Sleep(announceEvery)
		synctest.Wait()
		u.wantSealsWith(b)
		if got, want := u.last(KeySeals).Keys, b.ID(); len(got) != 1 || got[0] != want {
			t.Errorf("KeySeals: got keys %v, want %v", got, want)
		}

		// During an outage the key stays, unless it is dropped.
		u.store.set(0, errBoardDown)
		u.setKeys(c, b, a)
		synctest.Wait()
		u.wantSealsWith(b)
		u.setKeys(c, a)
		synctest.Wait()
		u.wantSealsWith(a) // which the other instance has
		u.setKeys(c)
		u.wantSealsWith(c)
	})
}

// TestValueThatAnotherInstanceOpensExists: its error is not ErrUnreadable until no
// instance has the key.
func TestValueThatAnotherInstanceOpensExists(t *testing.T) {
	a, b := testKey(1), testKey(2)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		lagging := startInstance(t, board, 0, nil, a)
		ahead := startInstance(t, board, 0, nil, b)
		s := ahead.seal()
		read := func() error {
			_, err := openHotPart(lagging.site, Ref{ID: s.id, Secret: s.secret}, s.item)
			return err
		}
		time.Sleep(announceEvery)
		synctest.Wait()
		if err := read(); err == nil || errors.Is(err, ErrUnreadable) {
			t.Errorf("while another instance has the key: got error %v, want one other than ErrUnreadable", err)
		}
		lagging.setKeys(b, a)
		lagging.opens(s)

		// After all instances have dropped the key.
		lagging.setKeys(a)
		ahead.stop()
		time.Sleep(announceEvery)
		synctest.Wait()
		if err := read(); !errors.Is(err, ErrUnreadable) {
			t.Errorf("after all have dropped the key: got error %v, want ErrUnreadable", err)
		}
	})
}

// TestUnknownKeyBeforeTheAnswerMayExist: before the first answer of the store, an instance
// cannot distinguish a dropped key from one that has not arrived.
func TestUnknownKeyBeforeTheAnswerMayExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		s := startInstance(t, board, 0, nil, testKey(2)).seal()
		u := startInstance(t, board, time.Second, nil, testKey(1))
		if _, err := openHotPart(u.site, Ref{ID: s.id, Secret: s.secret}, s.item); err == nil || errors.Is(err, ErrUnreadable) {
			t.Errorf("before an answer: got error %v, want one other than ErrUnreadable", err)
		}
	})
}

// TestLeavingInstanceDelaysNoKey: an instance that stops delays no key, and one that
// crashes delays it for a minute.
func TestLeavingInstanceDelaysNoKey(t *testing.T) {
	a, b := testKey(1), testKey(2)
	for name, tt := range map[string]struct {
		end  func(*instance)
		held time.Duration
	}{
		"stop":  {func(u *instance) { u.stop() }, 0},
		"crash": {func(u *instance) { u.kill() }, time.Minute - announceEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := newBoard()
				u := startInstance(t, board, 0, nil, b, a)
				old := startInstance(t, board, 0, nil, a)
				time.Sleep(announceEvery + time.Second)
				u.wantSealsWith(a)
				tt.end(old)
				if tt.held > 0 {
					time.Sleep(tt.held)
					u.wantSealsWith(a)
				}
				time.Sleep(2 * announceEvery)
				u.wantSealsWith(b)
			})
		})
	}
}

// TestKeyEventsRepeatOnceAMinute while the condition lasts.
func TestKeyEventsRepeatOnceAMinute(t *testing.T) {
	a, b := testKey(1), testKey(2)
	tests := []struct {
		name  string
		mine  []Key
		other []Key
		fails error
		kind  KeyEventKind
		after time.Duration // since the start
	}{
		{"none in common", []Key{a}, []Key{b}, nil, KeysApart, 0},
		{"one is missing", []Key{a}, []Key{b, a}, nil, KeysMissing, time.Minute},
		{"no answer", []Key{a}, []Key{a}, errBoardDown, KeysUnannounced, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := newBoard()
				startInstance(t, board, 0, nil, tt.other...)
				synctest.Wait()
				start := time.Now()
				u := startInstance(t, board, 0, tt.fails, tt.mine...)
				time.Sleep(5*time.Minute + time.Second)
				at := u.when(tt.kind)
				if want := int((5*time.Minute-tt.after)/time.Minute) + 1; len(at) != want {
					t.Fatalf("got %d events in 5 minutes, want %d", len(at), want)
				}
				if first := at[0].Sub(start); first != tt.after {
					t.Errorf("got the first event after %v, want %v", first, tt.after)
				}
				for i := 1; i < len(at); i++ {
					if gap := at[i].Sub(at[i-1]); gap < keyReportEvery {
						t.Errorf("got two events within %v, want at least %v", gap, keyReportEvery)
					}
				}
				e := u.last(tt.kind)
				if tt.fails != nil {
					if !errors.Is(e.Err, tt.fails) {
						t.Errorf("Err of the event: got %v, want %v", e.Err, tt.fails)
					}
				} else if len(e.Keys) != 1 || e.Keys[0] != b.ID() {
					t.Errorf("Keys of the event: got %v, want %v", e.Keys, b.ID())
				}
			})
		})
	}
}

// TestQuickRotationSendsNoEvent: within a minute, the keys may reach the instances one
// after another.
func TestQuickRotationSendsNoEvent(t *testing.T) {
	a, b := testKey(1), testKey(2)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		users := []*instance{startInstance(t, board, 0, nil, a), startInstance(t, board, 0, nil, a)}
		for _, keys := range [][]Key{{b, a}, {b}} {
			for _, u := range users {
				u.setKeys(keys...)
				time.Sleep(20 * time.Second)
			}
			time.Sleep(5 * time.Minute)
		}
		for _, u := range users {
			for _, kind := range []KeyEventKind{KeysMissing, KeysApart, KeysUnannounced} {
				if n := len(u.when(kind)); n > 0 {
					t.Errorf("got %d events of kind %d, want 0; the last is %v", n, kind, u.last(kind))
				}
			}
		}
	})
}

// TestOwnStoreNeedsNoAgreement: without Share, the first key seals at once.
func TestOwnStoreNeedsNoAgreement(t *testing.T) {
	site := testSite(t, testKey(2), testKey(1))
	u := &instance{t: t, site: site}
	u.wantSealsWith(testKey(2))
	u.setKeys(testKey(1), testKey(2))
	u.wantSealsWith(testKey(1))
	s := u.seal()
	u.opens(s)
	u.setKeys(testKey(2))
	if _, err := openHotPart(site, Ref{ID: s.id, Secret: s.secret}, s.item); !errors.Is(err, ErrUnreadable) {
		t.Errorf("sealed with a dropped key: got error %v, want ErrUnreadable", err)
	}
}

// TestKeysChangeUnderTraffic lets the race detector see changes during sealing.
func TestKeysChangeUnderTraffic(t *testing.T) {
	a, b, c := testKey(1), testKey(2), testKey(3)
	board := newBoard()
	u := startInstance(t, board, 0, nil, b, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			u.setKeys([][]Key{{b, a}, {c, b, a}, {b, a, c}}[i%3]...)
			board.post(session.Holder{1}, encodeAnnouncement(session.Holder{1}, mustRing(t, b, a)))
		}
	}()
	for {
		u.opens(u.seal())
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestUnreadableAnnouncementsAreReportedAndIgnored: the event repeats once a minute.
func TestUnreadableAnnouncementsAreReportedAndIgnored(t *testing.T) {
	for name, malformed := range map[string][]byte{
		"later release": append([]byte{announcementVersion + 1}, encodeAnnouncement(session.Holder{9}, mustRing(t, testKey(3)))[1:]...),
		"cut":           encodeAnnouncement(session.Holder{9}, mustRing(t, testKey(3)))[:20],
		"empty":         {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := newBoard()
				u := startInstance(t, board, 0, nil, testKey(2), testKey(1))
				time.Sleep(time.Second)
				if n := len(u.when(KeysUnreadable)); n != 0 {
					t.Errorf("got %d events without announcements, want 0", n)
				}
				for range 9 {
					board.post(session.Holder{9}, malformed)
					time.Sleep(20 * time.Second)
				}
				if n := len(u.when(KeysUnreadable)); n != 3 || u.last(KeysUnreadable).Err == nil {
					t.Errorf("got %d events in three minutes, want 3 with an error; the last is %v", n, u.last(KeysUnreadable))
				}
				u.wantSealsWith(testKey(2))
			})
		})
	}
}
