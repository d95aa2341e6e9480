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

// rig is a keeper with a store and an authorization server that do what a test
// tells them. It lives in a bubble of its own time.
type rig struct {
	t       *testing.T
	store   *fakeStore
	server  *authServer
	process *process
	config  Config
	vault   *Vault
	keeper  *Keeper
	events  *eventLog
	// messages counts the logouts of the server.
	messages int
}

// inBubble runs a test on a rig. When it is over the vault is closed, and a
// goroutine that is still there fails the test.
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
		r.store.healthy()
		if err := r.vault.Close(context.Background()); err != nil {
			t.Errorf("closing the vault: %v", err)
		}
		r.events.tellNoSecret(t)
	})
	return r
}

// reconfigure replaces the keeper, as a reload does: the vault stays.
func (r *rig) reconfigure(change func(c *Config)) *Keeper {
	change(&r.config)
	r.keeper = mustKeeper(r.config)
	return r.keeper
}

// secondInstance is another process on the same store.
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

func (r *rig) login() (seal.Secret, *family) {
	r.t.Helper()
	f, who, tokens := r.server.login()
	secret, s, err := r.keeper.Create(r.t.Context(), who, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	if s.AccessToken != tokens.AccessToken || s.Subject != who.Subject {
		r.t.Fatalf("created session is %+v", s)
	}
	return secret, f
}

func (r *rig) id(secret seal.Secret) session.ID { return r.config.Site.Ref(secret).ID }

// attach is Attach with an Attachment of its own.
func attach(k *Keeper, ctx context.Context, s *Session) (context.Context, *Attachment) {
	a := new(Attachment)
	return k.Attach(ctx, s, a), a
}

// fresh is a request that must succeed.
func (r *rig) fresh(secret seal.Secret) *Session {
	r.t.Helper()
	s, err := r.keeper.Fresh(r.t.Context(), secret)
	if err != nil {
		r.t.Fatalf("Fresh: %v", err)
	}
	r.usable(s)
	return s
}

// usable checks that the session's token may be sent upstream now.
func (r *rig) usable(s *Session) {
	r.t.Helper()
	expires, ok := r.server.expiry(s.AccessToken)
	switch {
	case !ok:
		r.t.Errorf("token %q was never issued", s.AccessToken)
	case !time.Now().Before(expires):
		r.t.Errorf("token %q has expired", s.AccessToken)
	}
}

// refuse is a request that must not succeed; it returns the error.
func (r *rig) refuse(secret seal.Secret) error {
	r.t.Helper()
	s, err := r.keeper.Fresh(r.t.Context(), secret)
	if err == nil {
		r.t.Fatalf("Fresh returned a session with token %q", s.AccessToken)
	}
	return err
}

// ended is a request that must find the session at this end.
func (r *rig) ended(secret seal.Secret, reason EndReason) {
	r.t.Helper()
	err := r.refuse(secret)
	var ended *EndedError
	if !errors.As(err, &ended) || ended.Reason != reason {
		r.t.Errorf("Fresh: %v, want the session ended by %s", err, reason)
	}
	if !errors.Is(err, ErrNoSession) {
		r.t.Errorf("%v is not ErrNoSession", err)
	}
	r.gone(secret)
}

// gone checks that there is no session any more, nor anything of it.
func (r *rig) gone(secret seal.Secret) {
	r.t.Helper()
	if err := r.refuse(secret); !errors.Is(err, ErrNoSession) {
		r.t.Errorf("Fresh: %v, want ErrNoSession", err)
	}
	if _, err := r.keeper.Peek(r.t.Context(), secret); !errors.Is(err, ErrNoSession) {
		r.t.Errorf("Peek: %v, want ErrNoSession", err)
	}
	if _, ok := r.store.item(r.id(secret)); ok {
		r.t.Error("the store still holds the session")
	}
}

// unavailable is a request that must be told to come back.
func (r *rig) unavailable(secret seal.Secret) *UnavailableError {
	r.t.Helper()
	err := r.refuse(secret)
	var unavailable *UnavailableError
	if !errors.As(err, &unavailable) {
		r.t.Fatalf("Fresh: %v, want an *UnavailableError", err)
	}
	if unavailable.RetryAfter <= 0 {
		r.t.Errorf("RetryAfter is %v", unavailable.RetryAfter)
	}
	return unavailable
}

// due lets time pass until the token is due for refresh but good; expired
// until it is good no more.
func (r *rig) due()     { time.Sleep(r.server.lifetime * 9 / 10) }
func (r *rig) expired() { time.Sleep(r.server.lifetime) }

// stored opens the record in the store.
func (r *rig) stored(secret seal.Secret) *record {
	r.t.Helper()
	id := r.id(secret)
	item, ok := r.store.item(id)
	if !ok {
		r.t.Fatal("the store holds no record")
	}
	rec, err := openRecord(r.config.Site, seal.Ref{ID: id, Secret: secret}, item)
	if err != nil {
		r.t.Fatalf("opening stored record: %v", err)
	}
	return rec
}

// wantCalls checks how many refresh requests there have been.
func (r *rig) wantCalls(n int) {
	r.t.Helper()
	if got := r.server.calls(); got != n {
		r.t.Errorf("%d refresh requests, want %d", got, n)
	}
}

// wantStored checks that the store holds the family's newest tokens.
func (r *rig) wantStored(secret seal.Secret, f *family) {
	r.t.Helper()
	rec := r.stored(secret)
	newest, _ := r.server.newestOf(f)
	if rec.token.value != newest || rec.refreshToken != f.current {
		r.t.Errorf("stored tokens are %q and %q, want %q and %q", rec.token.value, rec.refreshToken, newest, f.current)
	}
}

// took returns how much time f took.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// eventLog remembers events.
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

// tellNoSecret checks that no event shows a token of the fake server.
func (l *eventLog) tellNoSecret(t *testing.T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if strings.Contains(fmt.Sprintf("%+v", e), "-token-") {
			t.Errorf("event %+v shows a token", e)
		}
	}
}

// testKey returns a key that is always the same.
func testKey(n byte) (k seal.Key) {
	for i := range k {
		k[i] = byte(i)*7 + n*13
	}
	return k
}

// testSecret returns a secret that is always the same.
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

// mustKeeper makes a keeper of a configuration that is in order.
func mustKeeper(c Config) *Keeper {
	k, err := New(c)
	if err != nil {
		panic(err)
	}
	return k
}
