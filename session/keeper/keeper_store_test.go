package keeper

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestStoreDownDuringCommit: the new tokens are served from memory, refreshed
// from there, and written when the store can.
func TestStoreDownDuringCommit(t *testing.T) {
	for name, ops := range map[string][]storeOp{"writes fail": {opReplace}, "all fails": nil} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.set(func() { r.server.idTokens = true })
				secret, f := r.login()
				other, _ := r.login()
				r.due()
				r.fresh(secret)
				time.Sleep(100 * time.Millisecond) // the request has been sent
				r.store.failing(ops...)
				time.Sleep(time.Second)
				for n := range 20 {
					newest, _ := r.server.newestOf(f)
					if got := r.fresh(secret).AccessToken; got != newest {
						t.Fatalf("token %q, want %q", got, newest)
					}
					r.wantCalls(n + 1)
					r.expired()
					r.fresh(secret)
				}
				if ops == nil {
					// What is not in memory is unknown, but not gone.
					r.unavailable(other)
					if _, err := r.keeper.Peek(t.Context(), other); !errors.As(err, new(*UnavailableError)) {
						t.Errorf("Peek: %v", err)
					}
				}
				r.store.healthy()
				time.Sleep(writeRetryMax)
				synctest.Wait()
				r.wantStored(secret, f)
				if r.vault.overlay.count.Load() != 0 {
					t.Error("what is written is still kept in memory")
				}
				if r.events.count(EventUnwritten) == 0 || r.events.count(EventWritten) == 0 || r.events.count(EventEnded) != 0 {
					t.Errorf("events %+v", r.events.all)
				}
				calls := r.server.calls()
				r.fresh(secret)
				r.fresh(other)
				r.wantCalls(calls + 1) // the other's
			})
		})
	}
}

// TestRotationIsWrittenFirst: while the ID token beside it is still being
// judged, the rotated refresh token is in the store, and a crash does not take
// it along.
func TestRotationIsWrittenFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, time.Hour })
		secret, f := r.login()
		first := r.fresh(secret).AccessToken
		r.due()
		r.fresh(secret)
		time.Sleep(time.Second)
		if rec := r.stored(secret); rec.refreshToken != f.current || rec.token.value != first {
			t.Errorf("stored tokens are %q and %q", rec.token.value, rec.refreshToken)
		}
		r.wantCalls(1)
		r.process.dead.Store(true)
		r.server.set(func() { r.server.identifyDelay = 0 })
		next := r.secondInstance()
		s, err := next.Fresh(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		r.usable(s)
		time.Sleep(time.Second)
		r.wantCalls(2)
		if rec := r.stored(secret); rec.refreshToken != f.current {
			t.Errorf("stored refresh token is %q", rec.refreshToken)
		}
	})
}

// TestCloseWritesWhatIsUnwritten: the next process finds the rotated tokens.
func TestCloseWritesWhatIsUnwritten(t *testing.T) {
	for _, when := range []string{"unwritten", "flight under way"} {
		t.Run(when, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.expired()
				if when == "unwritten" {
					r.store.failing(opReplace)
					r.fresh(secret)
					time.Sleep(time.Minute)
					r.store.healthy()
				} else {
					go func() { _, _ = r.keeper.Fresh(t.Context(), secret) }()
					time.Sleep(time.Millisecond)
				}
				if err := r.vault.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				r.wantStored(secret, f)
				next := r.secondInstance()
				s, err := next.Fresh(t.Context(), secret)
				if err != nil {
					t.Fatal(err)
				}
				r.usable(s)
				r.wantCalls(1)
				// The closed one starts nothing more.
				r.expired()
				if err := r.unavailable(secret); !errors.Is(err, ErrClosed) {
					t.Errorf("Fresh after Close: %v", err)
				}
				r.wantCalls(1)
			})
		})
	}
}

// TestCloseIsBounded by its context.
func TestCloseIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.due()
		r.server.always(behaviour{before: time.Hour})
		r.fresh(secret)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if wait := took(func() {
			if err := r.vault.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v", err)
			}
		}); wait != 3*time.Second {
			t.Errorf("Close took %v", wait)
		}
	})
}

// TestCloseWritesTheNewestTokens: while the last attempt to write one refresh
// is under way, a later one fails to be written. It has its last attempt too.
func TestCloseWritesTheNewestTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.expired()
		r.store.failing(opReplace)
		r.fresh(secret)
		r.expired()
		time.Sleep(30 * time.Second) // the retries are seconds apart now
		r.server.set(func() { r.server.latency = time.Second })
		go func() { _, _ = r.keeper.Fresh(t.Context(), secret) }()
		time.Sleep(100 * time.Millisecond)
		// The attempt that Close starts takes long, and what fails meanwhile
		// is the flight's commit.
		n := 0
		r.store.setFault(func(op storeOp) storeFault {
			if op != opReplace {
				return storeFault{}
			}
			switch n++; n {
			case 1:
				return storeFault{before: 3 * time.Second}
			case 2:
				return storeFault{err: errStoreDown}
			}
			return storeFault{}
		})
		if err := r.vault.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantStored(secret, f)
	})
}

// TestWriteLandedThoughReportedFailed: the store takes every write and denies
// it.
func TestWriteLandedThoughReportedFailed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, 2*commitDelay })
		secret, f := r.login()
		r.store.setFault(func(op storeOp) storeFault {
			if op != opReplace {
				return storeFault{}
			}
			return storeFault{err: errStoreDown, landed: true}
		})
		for n := range 10 {
			r.expired()
			r.fresh(secret)
			r.wantCalls(n + 1)
			r.wantStored(secret, f)
		}
		time.Sleep(writeRetryMax)
		synctest.Wait()
		if r.vault.overlay.count.Load() != 0 {
			t.Error("what has landed is still kept in memory")
		}
		r.store.healthy()
		r.fresh(secret)
		r.wantCalls(10)
	})
}

// TestRetryDoesNotUndoTheCommit: the first half of a refresh could not be
// written and is being repeated while the second half lands. The repeat is
// older and must not win, or a token is lost and refreshed once more.
func TestRetryDoesNotUndoTheCommit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, 200*time.Millisecond })
		secret, f := r.login()
		r.fresh(secret)
		r.expired()
		r.keeper.recordUse(seal.Ref{ID: r.id(secret), Secret: secret}, time.Now()) // so that no use is written meanwhile
		synctest.Wait()
		n := 0
		r.store.setFault(func(op storeOp) storeFault {
			if op != opReplace {
				return storeFault{}
			}
			switch n++; n {
			case 1: // the rotated refresh token
				return storeFault{err: errStoreDown}
			case 2: // the repeat, slow on its way
				return storeFault{before: time.Second}
			}
			return storeFault{}
		})
		r.fresh(secret)
		r.wantStored(secret, f)
		time.Sleep(2 * time.Second)
		r.wantStored(secret, f)
		r.fresh(secret)
		r.wantCalls(1)
	})
}

// TestFrozenWriteDoesNotHoldUpTheNewToken: the store neither takes the write
// nor fails it. Requests that wait get the token they wait for all the same.
func TestFrozenWriteDoesNotHoldUpTheNewToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.expired()
		r.store.setFault(func(op storeOp) storeFault { return storeFault{freeze: op == opReplace} })
		r.fresh(secret)
	})
}

// TestSlowStore: writes that take long delay their session, and nothing else.
func TestSlowStore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.store.setFault(func(op storeOp) (fault storeFault) {
			if op.writes() {
				fault.before, fault.after = time.Second, time.Second
			}
			return fault
		})
		for n := range 5 {
			r.due()
			if wait := took(func() { r.fresh(secret) }); wait != 0 {
				t.Errorf("a request with a good token waited %v", wait)
			}
			time.Sleep(15 * time.Second)
			r.wantCalls(n + 1)
			r.wantStored(secret, f)
		}
	})
}

func TestStoreThatCannotRead(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.expired()
		r.store.failing(opView)
		for range 100 {
			if err := r.unavailable(secret); !errors.Is(err, errStoreDown) || err.Misconfigured {
				t.Fatalf("Fresh: %v", err)
			}
			time.Sleep(time.Minute)
		}
		r.wantCalls(0)
		r.store.healthy()
		r.fresh(secret)
		r.wantCalls(1)
	})
}

func TestCreateFailsWithTheStore(t *testing.T) {
	for name, fault := range map[string]storeFault{
		"down": {err: errStoreDown}, "frozen": {freeze: true}, "landed": {err: errStoreDown, landed: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.store.faultOnce(opCreate, 1, fault)
				_, who, tokens := r.server.login()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				secret, s, err := r.keeper.Create(ctx, who, tokens)
				var unavailable *UnavailableError
				if !errors.As(err, &unavailable) || s != nil || secret != (seal.Secret{}) {
					t.Fatalf("Create: %v, %v", s, err)
				}
				if strings.Contains(err.Error(), "-token-") || strings.Contains(err.Error(), who.Subject) {
					t.Errorf("the error tells too much: %v", err)
				}
				r.wantCalls(0)
			})
		})
	}
}

// TestDamagedRecordIsNoSession, whatever became of it in the store; and the
// requests for it cost the authorization server nothing.
func TestDamagedRecordIsNoSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		id := r.id(secret)
		item, _ := r.store.item(id)
		r.expired()
		for name, value := range map[string][]byte{
			"empty": nil, "short": []byte("\xa5s"), "head only": item.Value[:headSize+4], "garbage": make([]byte, 4000), "huge": make([]byte, 10<<20),
		} {
			bad := item
			bad.Value = value
			r.store.put(id, bad)
			if err := r.refuse(secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: Fresh: %v", name, err)
			}
			if _, err := r.keeper.End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: End: %v", name, err)
			}
		}
		r.wantCalls(0)
	})
}

// TestRollbackEndsWithOneQuestion: someone puts an older record back. Its
// refresh token is spent; one request finds out, and there is no loop.
func TestRollbackEndsWithOneQuestion(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.errorf = func(string, ...any) {} // the token is redeemed twice, and not by our fault
		secret, _ := r.login()
		id := r.id(secret)
		older, _ := r.store.item(id)
		r.expired()
		r.fresh(secret)
		r.store.put(id, older)
		r.expired()
		r.ended(secret, EndRejected)
		for range 10 {
			r.gone(secret)
			time.Sleep(time.Minute)
		}
		r.wantCalls(2)
		if r.server.reuses != 1 {
			t.Errorf("%d reuses, want 1", r.server.reuses)
		}
	})
}
