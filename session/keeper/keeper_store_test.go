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

// TestTokensStayInMemoryWhileTheStoreFails: the keeper serves and refreshes them from
// memory, and writes them when the store works again.
func TestTokensStayInMemoryWhileTheStoreFails(t *testing.T) {
	for name, ops := range map[string][]storeOp{"writes fail": {opReplace}, "all fails": nil} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.server.set(func() { r.server.idTokens = true })
				secret, f := r.login()
				other, _ := r.login()
				r.waitUntilDue()
				r.fresh(secret)
				time.Sleep(100 * time.Millisecond) // the request has been sent
				r.store.fail(ops...)
				time.Sleep(time.Second)
				for n := range 20 {
					newest, _ := r.server.newestOf(f)
					if got := r.fresh(secret).AccessToken; got != newest {
						t.Fatalf("got token %q, want %q", got, newest)
					}
					r.wantCalls(n + 1)
					r.waitUntilExpired()
					r.fresh(secret)
				}
				if ops == nil {
					// A session that is not in memory may exist or not.
					r.wantUnavailable(other)
					if _, err := r.keeper.Peek(t.Context(), other); !errors.As(err, new(*UnavailableError)) {
						t.Errorf("Peek: got error %v, want an *UnavailableError", err)
					}
				}
				r.store.clearFaults()
				time.Sleep(writeRetryMax)
				synctest.Wait()
				r.wantStored(secret, f)
				if r.vault.overlay.count.Load() != 0 {
					t.Error("got an unwritten record in memory after its write, want none")
				}
				if r.events.count(EventUnwritten) == 0 || r.events.count(EventWritten) == 0 || r.events.count(EventEnded) != 0 {
					t.Errorf("got events %+v, want unwritten and written, and no end", r.events.all)
				}
				calls := r.server.calls()
				r.fresh(secret)
				r.fresh(other)
				r.wantCalls(calls + 1) // the other's
			})
		})
	}
}

// TestRotatedTokenIsPersistedBeforeTheIDTokenIsVerified, so that a crash during the
// verification does not lose it.
func TestRotatedTokenIsPersistedBeforeTheIDTokenIsVerified(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, time.Hour })
		secret, f := r.login()
		first := r.fresh(secret).AccessToken
		r.waitUntilDue()
		r.fresh(secret)
		time.Sleep(time.Second)
		if rec := r.stored(secret); rec.refreshToken != f.current || rec.token.value != first {
			t.Errorf("got stored tokens %q and %q, want %q and %q", rec.token.value, rec.refreshToken, first, f.current)
		}
		r.wantCalls(1)
		r.process.dead.Store(true)
		r.server.set(func() { r.server.identifyDelay = 0 })
		next := r.secondInstance()
		s, err := next.Fresh(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		r.wantUsable(s)
		time.Sleep(time.Second)
		r.wantCalls(2)
		if rec := r.stored(secret); rec.refreshToken != f.current {
			t.Errorf("got stored refresh token %q, want %q", rec.refreshToken, f.current)
		}
	})
}

// TestCloseWritesUnwrittenTokens, so that the next process finds the rotated tokens.
func TestCloseWritesUnwrittenTokens(t *testing.T) {
	for _, when := range []string{"unwritten", "refresh in progress"} {
		t.Run(when, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				secret, f := r.login()
				r.waitUntilExpired()
				if when == "unwritten" {
					r.store.fail(opReplace)
					r.fresh(secret)
					time.Sleep(time.Minute)
					r.store.clearFaults()
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
				r.wantUsable(s)
				r.wantCalls(1)
				// The closed vault starts no refresh.
				r.waitUntilExpired()
				if err := r.wantUnavailable(secret); !errors.Is(err, ErrClosed) {
					t.Errorf("Fresh after Close: got error %v, want ErrClosed", err)
				}
				r.wantCalls(1)
			})
		})
	}
}

// TestCloseReturnsWhenItsContextEnds, though a refresh is in progress.
func TestCloseReturnsWhenItsContextEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilDue()
		r.server.always(behaviour{before: time.Hour})
		r.fresh(secret)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if wait := durationOf(func() {
			if err := r.vault.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: got error %v, want DeadlineExceeded", err)
			}
		}); wait != 3*time.Second {
			t.Errorf("Close took %v, want 3s", wait)
		}
	})
}

// TestCloseWritesTheNewestTokens: during the last try to write one refresh, the commit of a
// later refresh fails. Close tries once more to write that, too.
func TestCloseWritesTheNewestTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.waitUntilExpired()
		r.store.fail(opReplace)
		r.fresh(secret)
		r.waitUntilExpired()
		time.Sleep(30 * time.Second) // the retries are seconds apart now
		r.server.set(func() { r.server.latency = time.Second })
		go func() { _, _ = r.keeper.Fresh(t.Context(), secret) }()
		time.Sleep(100 * time.Millisecond)
		// The try that Close starts takes long, and the commit of the refresh fails
		// during it.
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

// TestDoneWriteThatReportsAnErrorLosesNoToken: the store does every write and returns an
// error.
func TestDoneWriteThatReportsAnErrorLosesNoToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, 2*commitDelay })
		secret, f := r.login()
		r.store.setFault(func(op storeOp) storeFault {
			if op != opReplace {
				return storeFault{}
			}
			return storeFault{err: errStoreDown, done: true}
		})
		for n := range 10 {
			r.waitUntilExpired()
			r.fresh(secret)
			r.wantCalls(n + 1)
			r.wantStored(secret, f)
		}
		time.Sleep(writeRetryMax)
		synctest.Wait()
		if r.vault.overlay.count.Load() != 0 {
			t.Error("got an unwritten record in memory after its write, want none")
		}
		r.store.clearFaults()
		r.fresh(secret)
		r.wantCalls(10)
	})
}

// TestRetryOfAnOlderWriteDoesNotUndoTheCommit: the write of the rotated refresh token fails
// and is repeated. The repeat arrives after the commit of the access token, and must not
// overwrite it.
func TestRetryOfAnOlderWriteDoesNotUndoTheCommit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.set(func() { r.server.idTokens, r.server.identifyDelay = true, 200*time.Millisecond })
		secret, f := r.login()
		r.fresh(secret)
		r.waitUntilExpired()
		r.keeper.recordUse(seal.Ref{ID: r.id(secret), Secret: secret}, time.Now()) // so that no use is written during the refresh
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

// TestRequestsGetTheNewTokenWhileAWriteHangs: the store does not answer the write.
func TestRequestsGetTheNewTokenWhileAWriteHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilExpired()
		r.store.setFault(func(op storeOp) storeFault { return storeFault{freeze: op == opReplace} })
		r.fresh(secret)
	})
}

// TestSlowWritesDelayNoRequestWithAUsableToken.
func TestSlowWritesDelayNoRequestWithAUsableToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, f := r.login()
		r.store.setFault(func(op storeOp) (fault storeFault) {
			if op.writes() {
				fault.before, fault.after = time.Second, time.Second
			}
			return fault
		})
		for n := range 5 {
			r.waitUntilDue()
			if wait := durationOf(func() { r.fresh(secret) }); wait != 0 {
				t.Errorf("Fresh with a usable token took %v, want no wait", wait)
			}
			time.Sleep(15 * time.Second)
			r.wantCalls(n + 1)
			r.wantStored(secret, f)
		}
	})
}

func TestSessionSurvivesAStoreThatCannotRead(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		r.waitUntilExpired()
		r.store.fail(opView)
		for range 100 {
			if err := r.wantUnavailable(secret); !errors.Is(err, errStoreDown) || err.Misconfigured {
				t.Fatalf("Fresh: got error %v, want %v", err, errStoreDown)
			}
			time.Sleep(time.Minute)
		}
		r.wantCalls(0)
		r.store.clearFaults()
		r.fresh(secret)
		r.wantCalls(1)
	})
}

func TestCreateFailsWithTheStoreAndRevealsNothing(t *testing.T) {
	for name, fault := range map[string]storeFault{
		"down": {err: errStoreDown}, "frozen": {freeze: true}, "landed": {err: errStoreDown, done: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.store.faultOnce(opCreate, 1, fault)
				_, user, tokens := r.server.login()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				secret, s, err := r.keeper.Create(ctx, user, tokens)
				var unavailable *UnavailableError
				if !errors.As(err, &unavailable) || s != nil || secret != (seal.Secret{}) {
					t.Fatalf("Create: got session %v and error %v, want only an *UnavailableError", s, err)
				}
				if strings.Contains(err.Error(), "-token-") || strings.Contains(err.Error(), user.Subject) {
					t.Errorf("got error %q, want one without tokens and subject", err)
				}
				r.wantCalls(0)
			})
		})
	}
}

// TestDamagedRecordIsNoSession, and causes no request to the authorization server.
func TestDamagedRecordIsNoSession(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret, _ := r.login()
		id := r.id(secret)
		item, _ := r.store.item(id)
		r.waitUntilExpired()
		for name, value := range map[string][]byte{
			"empty": nil, "short": []byte("\xa5s"), "head only": item.Value[:headSize+4], "garbage": make([]byte, 4000), "huge": make([]byte, 10<<20),
		} {
			bad := item
			bad.Value = value
			r.store.put(id, bad)
			if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: Fresh: got error %v, want ErrNoSession", name, err)
			}
			if _, err := r.keeper.End(t.Context(), secret, EndLogout); !errors.Is(err, ErrNoSession) {
				t.Errorf("%s: End: got error %v, want ErrNoSession", name, err)
			}
		}
		r.wantCalls(0)
	})
}

// TestRestoredOldRecordEndsAfterOneRefresh: the refresh token of an older record is spent.
// The server refuses it once, and the keeper does not send it again.
func TestRestoredOldRecordEndsAfterOneRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.errorf = func(string, ...any) {} // the test makes the keeper send a spent token
		secret, _ := r.login()
		id := r.id(secret)
		older, _ := r.store.item(id)
		r.waitUntilExpired()
		r.fresh(secret)
		r.store.put(id, older)
		r.waitUntilExpired()
		r.wantEnded(secret, EndRejected)
		for range 10 {
			r.wantGone(secret)
			time.Sleep(time.Minute)
		}
		r.wantCalls(2)
		if r.server.reuses != 1 {
			t.Errorf("got %d reuses, want 1", r.server.reuses)
		}
	})
}
