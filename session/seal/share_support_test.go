package seal

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// board is the part of a shared store that keeps announcements.
type board struct {
	mu     sync.Mutex
	posted map[session.Holder]posting
}

type posting struct {
	announcement []byte
	at           time.Time
}

func newBoard() *board { return &board{posted: map[session.Holder]posting{}} }

// post stores an announcement, as anyone with write access to the store can.
func (b *board) post(from session.Holder, announcement []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.posted[from] = posting{slices.Clone(announcement), time.Now()}
}

// current returns the announcements of the last minute.
func (b *board) current() [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all [][]byte
	for _, p := range b.posted {
		if time.Since(p.at) < time.Minute {
			all = append(all, slices.Clone(p.announcement))
		}
	}
	return all
}

// boardClient is the connection of one process to the board.
type boardClient struct {
	*board

	mu    sync.Mutex
	err   error         // returned instead of the announcements
	delay time.Duration // half before the announcement is stored, half after
	calls int
}

func (u *boardClient) set(delay time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.delay, u.err = delay, err
}

// count returns the number of calls of Announce.
func (u *boardClient) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls
}

func (u *boardClient) Announce(ctx context.Context, _ session.Topic, from session.Holder, announcement []byte) ([][]byte, error) {
	u.mu.Lock()
	delay, err := u.delay, u.err
	u.calls++
	u.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := pass(ctx, delay/2); err != nil {
		return nil, err
	}
	u.board.post(from, announcement)
	all := u.board.current()
	return all, pass(ctx, delay/2)
}

var errBoardDown = errors.New("the store is down")

// instance is one process with keys.
type instance struct {
	t     *testing.T
	site  *Site
	store *boardClient
	stop  func() // ends it, and announces that it leaves
	kill  func() // ends it like a crash

	mu     sync.Mutex
	events []KeyEvent
	at     []time.Time
}

// startInstance starts an instance. Its store answers after delay, or with err.
func startInstance(t *testing.T, b *board, delay time.Duration, err error, keys ...Key) *instance {
	t.Helper()
	u := &instance{t: t, site: testSite(t, keys...), store: &boardClient{board: b, delay: delay, err: err}}
	run := Share(u.store, u.site, u.observe)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	u.stop = func() { cancel(); running.Wait() }
	u.kill = func() { u.store.set(0, errBoardDown); u.stop() }
	t.Cleanup(u.stop)
	return u
}

func (u *instance) observe(e KeyEvent) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events, u.at = append(u.events, e), append(u.at, time.Now())
}

// when returns the times of all events of a kind.
func (u *instance) when(kind KeyEventKind) (at []time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, e := range u.events {
		if e.Kind == kind {
			at = append(at, u.at[i])
		}
	}
	return at
}

// last returns the last event of a kind.
func (u *instance) last(kind KeyEventKind) (last KeyEvent) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.events {
		if e.Kind == kind {
			last = e
		}
	}
	return last
}

func (u *instance) setKeys(keys ...Key) {
	u.t.Helper()
	u.site.SetKeys(mustRing(u.t, keys...))
}

// wantSealsWith checks the key that an instance seals with now.
func (u *instance) wantSealsWith(want Key) {
	u.t.Helper()
	if root, err := u.site.sealing(); err != nil {
		u.t.Errorf("sealing key: got error %v, want %v", err, want.id())
	} else if root.Key != want {
		u.t.Errorf("sealing key: got %v, want %v", root.id, want.id())
	}
}

// sealedPair is a record and a login cookie that one instance has sealed.
type sealedPair struct {
	by     KeyID
	id     session.ID
	secret Secret
	item   session.Item
	cookie string
}

// seal seals a record and a login cookie.
func (u *instance) seal() sealedPair {
	u.t.Helper()
	s := sealedPair{secret: NewSecret()}
	s.id = u.site.Ref(s.secret).ID
	value, err := sealParts(u.site, Ref{ID: s.id, Secret: s.secret}, fullParts(), 1)
	if err != nil {
		u.t.Fatalf("sealing: %v", err)
	}
	s.item, s.by = session.Item{Version: 1, Value: value}, KeyID(value[4:4+keyIDSize])
	if s.cookie, err = u.site.SealForBrowser("login", []byte("attempt")); err != nil {
		u.t.Fatalf("sealing a login cookie: %v", err)
	}
	return s
}

// opens checks that an instance opens the record and the cookie of another one.
func (u *instance) opens(s sealedPair) {
	u.t.Helper()
	if _, err := openParts(u.site, Ref{ID: s.id, Secret: s.secret}, s.item); err != nil {
		u.t.Errorf("opening a record: got error %v, want nil", err)
	}
	if _, ok := u.site.OpenFromBrowser("login", s.cookie); !ok {
		u.t.Errorf("opening a login cookie of key %v: got false, want true", s.by)
	}
}

// pass waits for d. It returns the error of ctx if that ends first.
func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
