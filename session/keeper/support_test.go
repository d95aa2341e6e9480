package keeper

import (
	"context"
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

// rig is a keeper with a fake store and a fake authorization server, whose faults a test
// sets.
type rig struct {
	t       *testing.T
	store   *fakeStore
	server  *authServer
	process *process
	config  Config
	vault   *Vault
	keeper  *Keeper
	events  *eventLog
	// logoutTokens counts the logout tokens of the server.
	logoutTokens int
}

// inBubble runs a test with a rig under synctest. At the end it closes the vault; a
// goroutine that is left fails the test.
func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, newRig(t))
	})
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: newFakeStore(), process: &process{}, events: &eventLog{}}
	r.server = newAuthServer(t.Errorf)
	ring, err := seal.NewKeyRing(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	r.vault = NewVault(r.store)
	r.config = Config{
		Vault:                r.vault,
		Site:                 seal.NewSite(ring, "https://as.example.com", "client", "cookie"),
		Refresher:            r.server.client(r.process),
		IdleTimeout:          8 * time.Hour,
		MaxLifetime:          24 * time.Hour,
		RefreshTimeout:       10 * time.Second,
		DefaultTokenLifetime: 5 * time.Minute,
		Observe:              r.events.add,
	}
	r.keeper = mustKeeper(r.config)
	t.Cleanup(func() {
		r.store.clearFaults()
		if err := r.vault.Close(context.Background()); err != nil {
			t.Errorf("closing the vault: %v", err)
		}
		r.events.wantNoToken(t)
	})
	return r
}

// reconfigure replaces the keeper, as a reload does, and keeps the vault.
func (r *rig) reconfigure(change func(c *Config)) *Keeper {
	change(&r.config)
	r.keeper = mustKeeper(r.config)
	return r.keeper
}

// secondInstance returns a keeper of another process on the same store.
func (r *rig) secondInstance() *Keeper {
	c := r.config
	c.Vault = NewVault(r.store)
	c.Refresher = r.server.client(&process{})
	r.t.Cleanup(func() {
		if err := c.Vault.Close(context.Background()); err != nil {
			r.t.Errorf("closing the second vault: %v", err)
		}
	})
	return mustKeeper(c)
}

// login creates a session of a new login.
func (r *rig) login() (seal.Secret, *family) {
	r.t.Helper()
	f, user, tokens := r.server.login()
	secret, s, err := r.keeper.Create(r.t.Context(), user, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	if s.AccessToken != tokens.AccessToken || s.Subject != user.Subject {
		r.t.Fatalf("Create: got %+v, want token %q and subject %q", s, tokens.AccessToken, user.Subject)
	}
	return secret, f
}

func (r *rig) id(secret seal.Secret) session.ID { return r.config.Site.Ref(secret).ID }

// attach calls Attach with a new Attachment.
func attach(k *Keeper, ctx context.Context, s *Session) (context.Context, *Attachment) {
	a := new(Attachment)
	return k.Attach(ctx, s, a), a
}

// fresh is a request that must succeed with a usable token.
func (r *rig) fresh(secret seal.Secret) *Session {
	r.t.Helper()
	s, err := r.keeper.Fresh(r.t.Context(), secret)
	if err != nil {
		r.t.Fatalf("Fresh: got error %v, want none", err)
	}
	r.wantUsable(s)
	return s
}

// wantUsable checks that the session's token was issued and has not expired.
func (r *rig) wantUsable(s *Session) {
	r.t.Helper()
	expires, ok := r.server.expiry(s.AccessToken)
	switch {
	case !ok:
		r.t.Errorf("got token %q, which was never issued", s.AccessToken)
	case !time.Now().Before(expires):
		r.t.Errorf("got token %q, which has expired", s.AccessToken)
	}
}

// wantError is a request that must fail. It returns the error.
func (r *rig) wantError(secret seal.Secret) error {
	r.t.Helper()
	s, err := r.keeper.Fresh(r.t.Context(), secret)
	if err == nil {
		r.t.Fatalf("Fresh: got token %q, want an error", s.AccessToken)
	}
	return err
}

// wantEnded is a request that must end the session for the given reason.
func (r *rig) wantEnded(secret seal.Secret, reason EndReason) {
	r.t.Helper()
	err := r.wantError(secret)
	var ended *EndedError
	if !errors.As(err, &ended) || ended.Reason != reason {
		r.t.Errorf("Fresh: got error %v, want an *EndedError with reason %s", err, reason)
	}
	if !errors.Is(err, ErrNoSession) {
		r.t.Errorf("Fresh: got error %v, want one that is ErrNoSession", err)
	}
	r.wantGone(secret)
}

// wantGone checks that neither the keeper nor the store has the session.
func (r *rig) wantGone(secret seal.Secret) {
	r.t.Helper()
	if err := r.wantError(secret); !errors.Is(err, ErrNoSession) {
		r.t.Errorf("Fresh: got error %v, want ErrNoSession", err)
	}
	if _, err := r.keeper.Peek(r.t.Context(), secret); !errors.Is(err, ErrNoSession) {
		r.t.Errorf("Peek: got error %v, want ErrNoSession", err)
	}
	if _, ok := r.store.item(r.id(secret)); ok {
		r.t.Error("got an item in the store, want none")
	}
}

// wantUnavailable is a request that must fail with an *UnavailableError.
func (r *rig) wantUnavailable(secret seal.Secret) *UnavailableError {
	r.t.Helper()
	err := r.wantError(secret)
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) {
		r.t.Fatalf("Fresh: got error %v, want an *UnavailableError", err)
	}
	if unavailable.RetryAfter <= 0 {
		r.t.Errorf("got RetryAfter %v, want more than zero", unavailable.RetryAfter)
	}
	return unavailable
}

// waitUntilDue waits until the token is due for a refresh and has not expired.
// waitUntilExpired waits until it has expired.
func (r *rig) waitUntilDue()     { time.Sleep(r.server.lifetime * 9 / 10) }
func (r *rig) waitUntilExpired() { time.Sleep(r.server.lifetime) }

// stored returns the decrypted record in the store.
func (r *rig) stored(secret seal.Secret) *record {
	r.t.Helper()
	id := r.id(secret)
	item, ok := r.store.item(id)
	if !ok {
		r.t.Fatal("got no item in the store, want one")
	}
	rec, err := openRecord(r.config.Site, seal.Ref{ID: id, Secret: secret}, item)
	if err != nil {
		r.t.Fatalf("opening stored record: %v", err)
	}
	return rec
}

// wantCalls checks the number of refresh requests so far.
func (r *rig) wantCalls(n int) {
	r.t.Helper()
	if got := r.server.calls(); got != n {
		r.t.Errorf("got %d refresh requests, want %d", got, n)
	}
}

// wantStored checks that the store has the newest tokens of the family.
func (r *rig) wantStored(secret seal.Secret, f *family) {
	r.t.Helper()
	rec := r.stored(secret)
	newest, _ := r.server.newestOf(f)
	if rec.token.value != newest || rec.refreshToken != f.current {
		r.t.Errorf("got stored tokens %q and %q, want %q and %q", rec.token.value, rec.refreshToken, newest, f.current)
	}
}

// durationOf returns the duration of f.
func durationOf(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// eventLog collects events.
type eventLog struct {
	mu  sync.Mutex
	all []Event
}

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *eventLog) count(kind EventKind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// wantNoToken checks that no event contains a token of the fake server.
func (l *eventLog) wantNoToken(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if strings.Contains(fmt.Sprintf("%+v", e), "-token-") {
			t.Errorf("got event %+v, want one without tokens", e)
		}
	}
}

// testKey returns the same key for the same n.
func testKey(n byte) (k seal.Key) {
	for i := range k {
		k[i] = byte(i)*7 + n*13
	}
	return k
}

// testSecret returns the same secret for the same n.
func testSecret(n byte) (s seal.Secret) {
	for i := range s {
		s[i] = byte(i)*11 + n*17
	}
	return s
}

func mustRing(t testing.TB, keys ...seal.Key) *seal.KeyRing {
	t.Helper()
	ring, err := seal.NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// The layout of a sealed record, which package seal documents.
const (
	keyIDSize = 8
	headSize  = 2 + 1 + 1 + keyIDSize + 8 + 32
	maxSealed = 1 << 19
)

// mustKeeper makes a keeper of a valid configuration.
func mustKeeper(c Config) *Keeper {
	k, err := New(c)
	if err != nil {
		panic(err)
	}
	return k
}
