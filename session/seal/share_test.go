package seal

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestKeysRotateInstanceByInstance takes three instances from [A] over [B, A]
// to [B] one after another, under traffic, with a store that answers late and
// restarts in between: whatever is sealed opens everywhere at that moment, and
// what was sealed before the old key goes is not lost until then.
func TestKeysRotateInstanceByInstance(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) { rotateKeys(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func rotateKeys(t *testing.T, random *rand.Rand) {
	a, b := testKey(1), testKey(2)
	board := newBoard()
	late := func() time.Duration { return time.Duration(random.IntN(1500)) * time.Millisecond }
	var users []*keyUser
	for range 3 {
		users = append(users, startKeyUser(t, board, late(), nil, a))
	}
	var kept []sealedThing
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
	// change gives one instance other keys: at run time, by a restart in good
	// order, or after a crash.
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
		users[i] = startKeyUser(t, board, late(), nil, keys...)
	}
	traffic(time.Second, true)
	for _, i := range random.Perm(len(users)) {
		change(i, b, a)
		traffic(time.Duration(random.IntN(12))*time.Second, true)
	}
	// A crashed instance is only forgotten after a minute.
	traffic(time.Minute+2*announceEvery, true)
	for _, u := range users {
		u.sealsWith(b)
	}
	for _, i := range random.Perm(len(users)) {
		change(i, b)
		traffic(time.Duration(random.IntN(12))*time.Second, false)
	}
	for _, u := range users {
		u.sealsWith(b)
	}
}

// TestNothingIsSealedBeforeTheAnswer: a restart says nothing about how far a
// rotation is. With [B, A] the others may have [A] or already [B].
func TestNothingIsSealedBeforeTheAnswer(t *testing.T) {
	a, b := testKey(1), testKey(2)
	for _, have := range []Key{a, b} {
		synctest.Test(t, func(t *testing.T) {
			board := newBoard()
			startKeyUser(t, board, 0, nil, have)
			synctest.Wait()
			begun := time.Now()
			u := startKeyUser(t, board, 0, errBoardDown, b, a)
			if _, err := u.site.sealing(); !errors.Is(err, ErrNotAgreed) {
				t.Errorf("before an answer: %v, want ErrNotAgreed", err)
			}
			if waited := time.Since(begun); waited != 0 {
				t.Errorf("waited %v for a store that has failed", waited)
			}
			if _, err := u.site.SealForBrowser("login", nil); !errors.Is(err, ErrNotAgreed) {
				t.Errorf("a login cookie before an answer: %v, want ErrNotAgreed", err)
			}
			u.store.set(0, nil)
			time.Sleep(announceRetry)
			synctest.Wait()
			u.sealsWith(have)
		})
	}
}

// TestSealingWaitsForTheAnswer: not for long, and for nothing with one key.
func TestSealingWaitsForTheAnswer(t *testing.T) {
	a, b := testKey(1), testKey(2)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		begun := time.Now()
		startKeyUser(t, board, time.Second, nil, b, a).sealsWith(b)
		if waited := time.Since(begun); waited != time.Second {
			t.Errorf("sealed after %v, want when the store has answered", waited)
		}
		begun = time.Now()
		startKeyUser(t, board, 4*time.Second, nil, b).sealsWith(b)
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("sealed after %v with one key, which leaves no choice", waited)
		}
		u := startKeyUser(t, board, 4*time.Second, nil, b, a)
		begun = time.Now()
		if _, err := u.site.sealing(); !errors.Is(err, ErrNotAgreed) || time.Since(begun) != agreementWait {
			t.Errorf("%v after %v, want ErrNotAgreed after %v", err, time.Since(begun), agreementWait)
		}
	})
}

// TestChangedKeysWaitForTheAnswer: what was heard of the others before may be
// old, and another instance may have come.
func TestChangedKeysWaitForTheAnswer(t *testing.T) {
	a, b, c := testKey(1), testKey(2), testKey(3)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		u := startKeyUser(t, board, 0, nil, a)
		synctest.Wait() // it is alone
		other := startKeyUser(t, board, 0, nil, a)
		synctest.Wait()
		u.setKeys(b, a)
		u.sealsWith(a)
		synctest.Wait()
		if asked := u.store.count(); asked != 2 {
			t.Errorf("asked %d times, want once more and at once", asked)
		}
		u.sealsWith(a)
		other.setKeys(b, a)
		time.Sleep(announceEvery)
		synctest.Wait()
		u.sealsWith(b)
		if got, want := u.last(KeySeals).Keys, b.ID(); len(got) != 1 || got[0] != want {
			t.Errorf("the observer was told that %v seals, want %v", got, want)
		}

		// An outage changes nothing, a dropped key excepted.
		u.store.set(0, errBoardDown)
		u.setKeys(c, b, a)
		synctest.Wait()
		u.sealsWith(b)
		u.setKeys(c, a)
		synctest.Wait()
		u.sealsWith(a) // the other one has it
		u.setKeys(c)
		u.sealsWith(c)
	})
}

// TestLaggingInstance: what another instance can open is not nothing.
func TestLaggingInstance(t *testing.T) {
	a, b := testKey(1), testKey(2)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		lagging := startKeyUser(t, board, 0, nil, a)
		ahead := startKeyUser(t, board, 0, nil, b)
		s := ahead.seal()
		read := func() error {
			_, err := openHotPart(lagging.site, Ref{ID: s.id, Secret: s.secret}, s.item)
			return err
		}
		time.Sleep(announceEvery)
		synctest.Wait()
		if err := read(); err == nil || errors.Is(err, ErrUnreadable) {
			t.Errorf("while another instance has the key: %v, want an error other than ErrUnreadable", err)
		}
		lagging.setKeys(b, a)
		lagging.opens(s)

		// Dropped everywhere, it is gone.
		lagging.setKeys(a)
		ahead.stop()
		time.Sleep(announceEvery)
		synctest.Wait()
		if err := read(); !errors.Is(err, ErrUnreadable) {
			t.Errorf("when no instance has the key: %v, want ErrUnreadable", err)
		}
	})
}

// TestUnknownKeyBeforeTheAnswer: who has not heard of the others cannot tell a
// dropped key from one that has not arrived.
func TestUnknownKeyBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		s := startKeyUser(t, board, 0, nil, testKey(2)).seal()
		u := startKeyUser(t, board, time.Second, nil, testKey(1))
		if _, err := openHotPart(u.site, Ref{ID: s.id, Secret: s.secret}, s.item); err == nil || errors.Is(err, ErrUnreadable) {
			t.Errorf("before an answer: %v, want another error than for what does not exist", err)
		}
	})
}

// TestLeaving: an instance that goes holds up no key, and one that crashes does
// for a minute.
func TestLeaving(t *testing.T) {
	a, b := testKey(1), testKey(2)
	for name, tt := range map[string]struct {
		end  func(*keyUser)
		held time.Duration
	}{
		"in good order": {func(u *keyUser) { u.stop() }, 0},
		"crash":         {func(u *keyUser) { u.kill() }, time.Minute - announceEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := newBoard()
				u := startKeyUser(t, board, 0, nil, b, a)
				old := startKeyUser(t, board, 0, nil, a)
				time.Sleep(announceEvery + time.Second)
				u.sealsWith(a)
				tt.end(old)
				if tt.held > 0 {
					time.Sleep(tt.held)
					u.sealsWith(a)
				}
				time.Sleep(2 * announceEvery)
				u.sealsWith(b)
			})
		})
	}
}

// TestKeyReports: loud, and once a minute.
func TestKeyReports(t *testing.T) {
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
				startKeyUser(t, board, 0, nil, tt.other...)
				synctest.Wait()
				begun := time.Now()
				u := startKeyUser(t, board, 0, tt.fails, tt.mine...)
				time.Sleep(5*time.Minute + time.Second)
				at := u.when(tt.kind)
				if want := int((5*time.Minute-tt.after)/time.Minute) + 1; len(at) != want {
					t.Fatalf("%d reports in 5 minutes, want %d", len(at), want)
				}
				if first := at[0].Sub(begun); first != tt.after {
					t.Errorf("first report after %v, want %v", first, tt.after)
				}
				for i := 1; i < len(at); i++ {
					if gap := at[i].Sub(at[i-1]); gap < keyReportEvery {
						t.Errorf("two reports within %v", gap)
					}
				}
				e := u.last(tt.kind)
				if tt.fails != nil {
					if !errors.Is(e.Err, tt.fails) {
						t.Errorf("the report says %v", e.Err)
					}
				} else if len(e.Keys) != 1 || e.Keys[0] != b.ID() {
					t.Errorf("the report names %v, want %v", e.Keys, b.ID())
				}
			})
		})
	}
}

// TestRotationIsNoAlarm: keys that reach the instances one after another within
// a minute are nobody's business.
func TestRotationIsNoAlarm(t *testing.T) {
	a, b := testKey(1), testKey(2)
	synctest.Test(t, func(t *testing.T) {
		board := newBoard()
		users := []*keyUser{startKeyUser(t, board, 0, nil, a), startKeyUser(t, board, 0, nil, a)}
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
					t.Errorf("%d reports of kind %d, the last: %v", n, kind, u.last(kind))
				}
			}
		}
	})
}

// TestOwnStoreNeedsNoAgreement: with a store of its own a process asks nobody.
func TestOwnStoreNeedsNoAgreement(t *testing.T) {
	site := testSite(t, testKey(2), testKey(1))
	u := &keyUser{t: t, site: site}
	u.sealsWith(testKey(2))
	u.setKeys(testKey(1), testKey(2))
	u.sealsWith(testKey(1))
	s := u.seal()
	u.opens(s)
	u.setKeys(testKey(2))
	if _, err := openHotPart(site, Ref{ID: s.id, Secret: s.secret}, s.item); !errors.Is(err, ErrUnreadable) {
		t.Errorf("sealed with a dropped key: %v, want ErrUnreadable", err)
	}
}

// TestKeysChangeUnderTraffic is for the race detector.
func TestKeysChangeUnderTraffic(t *testing.T) {
	a, b, c := testKey(1), testKey(2), testKey(3)
	board := newBoard()
	u := startKeyUser(t, board, 0, nil, b, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			u.setKeys([][]Key{{b, a}, {c, b, a}, {b, a, c}}[i%3]...)
			board.post(session.Holder{1}, keyNote(session.Holder{1}, mustRing(t, b, a)))
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

// TestUnreadableAnnouncementsAreTold once a minute, and count for nothing.
func TestUnreadableAnnouncementsAreTold(t *testing.T) {
	for name, note := range map[string][]byte{
		"later release": append([]byte{keyNoteVersion + 1}, keyNote(session.Holder{9}, mustRing(t, testKey(3)))[1:]...),
		"cut":           keyNote(session.Holder{9}, mustRing(t, testKey(3)))[:20],
		"empty":         {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				board := newBoard()
				u := startKeyUser(t, board, 0, nil, testKey(2), testKey(1))
				time.Sleep(time.Second)
				if n := len(u.when(KeysUnreadable)); n != 0 {
					t.Errorf("%d reports of nothing", n)
				}
				for range 9 {
					board.post(session.Holder{9}, note)
					time.Sleep(20 * time.Second)
				}
				if n := len(u.when(KeysUnreadable)); n != 3 || u.last(KeysUnreadable).Err == nil {
					t.Errorf("%d reports in three minutes, the last: %v", n, u.last(KeysUnreadable))
				}
				u.sealsWith(testKey(2))
			})
		})
	}
}
