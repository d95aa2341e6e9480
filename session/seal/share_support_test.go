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

// board is a shared store of which only the notes are used.
type board struct {
	mu    sync.Mutex
	notes map[session.Holder]posted
}

type posted struct {
	note []byte
	at   time.Time
}

func newBoard() *board { return &board{notes: map[session.Holder]posted{}} }

// post puts a note up as anybody can who can write to the store.
func (b *board) post(from session.Holder, note []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes[from] = posted{slices.Clone(note), time.Now()}
}

func (b *board) current() [][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	var notes [][]byte
	for _, n := range b.notes {
		if time.Since(n.at) < time.Minute {
			notes = append(notes, slices.Clone(n.note))
		}
	}
	return notes
}

// boardUser is the board as one process reaches it.
type boardUser struct {
	*board

	mu    sync.Mutex
	err   error         // what it answers instead
	delay time.Duration // before and after what it does
	asked int
}

func (u *boardUser) set(delay time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.delay, u.err = delay, err
}

// count returns how often the board was asked.
func (u *boardUser) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked
}

func (u *boardUser) Announce(ctx context.Context, _ session.Topic, from session.Holder, note []byte) ([][]byte, error) {
	u.mu.Lock()
	delay, err := u.delay, u.err
	u.asked++
	u.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := pass(ctx, delay/2); err != nil {
		return nil, err
	}
	u.board.post(from, note)
	notes := u.board.current()
	return notes, pass(ctx, delay/2)
}

var errBoardDown = errors.New("the store is down")

// keyUser is one instance with keys.
type keyUser struct {
	t     *testing.T
	site  *Site
	store *boardUser
	stop  func() // in good order
	kill  func() // without taking leave

	mu     sync.Mutex
	events []KeyEvent
	at     []time.Time
}

// startKeyUser starts an instance whose store answers after delay, or with err.
func startKeyUser(t *testing.T, b *board, delay time.Duration, err error, keys ...Key) *keyUser {
	t.Helper()
	u := &keyUser{t: t, site: testSite(t, keys...), store: &boardUser{board: b, delay: delay, err: err}}
	run := Share(u.store, u.site, u.observe)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	u.stop = func() { cancel(); running.Wait() }
	u.kill = func() { u.store.set(0, errBoardDown); u.stop() }
	t.Cleanup(u.stop)
	return u
}

func (u *keyUser) observe(e KeyEvent) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.events, u.at = append(u.events, e), append(u.at, time.Now())
}

// when returns the times of all events of a kind.
func (u *keyUser) when(kind KeyEventKind) (at []time.Time) {
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
func (u *keyUser) last(kind KeyEventKind) (last KeyEvent) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.events {
		if e.Kind == kind {
			last = e
		}
	}
	return last
}

func (u *keyUser) setKeys(keys ...Key) {
	u.t.Helper()
	u.site.SetKeys(mustRing(u.t, keys...))
}

// sealsWith checks which key an instance seals with now.
func (u *keyUser) sealsWith(want Key) {
	u.t.Helper()
	if root, err := u.site.sealing(); err != nil {
		u.t.Errorf("seals nothing: %v", err)
	} else if root.Key != want {
		u.t.Errorf("seals with key %v, want %v", root.id, want.id())
	}
}

// sealedThing is a record and a login cookie of one instance.
type sealedThing struct {
	by     KeyID
	id     session.ID
	secret Secret
	item   session.Item
	cookie string
}

func (u *keyUser) seal() sealedThing {
	u.t.Helper()
	s := sealedThing{secret: NewSecret()}
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

// opens checks that an instance can use what another one has sealed.
func (u *keyUser) opens(s sealedThing) {
	u.t.Helper()
	if _, err := openParts(u.site, Ref{ID: s.id, Secret: s.secret}, s.item); err != nil {
		u.t.Errorf("a record does not open: %v", err)
	}
	if _, ok := u.site.OpenFromBrowser("login", s.cookie); !ok {
		u.t.Errorf("a login cookie does not open beside a record of key %v", s.by)
	}
}

// pass lets time go by, unless ctx ends first.
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
