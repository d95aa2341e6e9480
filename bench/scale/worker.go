package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// A worker has a store open.
type worker struct {
	run
	*stores.Sessions
	secrets *os.File
	n       int         // sessions
	idToken atomic.Bool // refreshes return an ID token
	written sync.Map    // session.ID to a channel, closed when a refresh of the session is written
	next    atomic.Int64
}

// open opens the store and reads the first session, if there is one.
func (w *worker) open() error {
	key, err := seal.ParseKey(w.key)
	if err != nil {
		return err
	}
	if w.secrets, err = os.OpenFile(w.secretsFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	info, err := w.secrets.Stat()
	if err != nil {
		return err
	}
	w.n = int(info.Size()) / len(seal.Secret{})
	w.Sessions, err = stores.Open(stores.Config{
		Place: w.place, Key: key, Issuer: "https://login.example.com", IDTokens: w.idToken.Load, Observe: w.observe,
	})
	if err == nil && w.n > 0 {
		err = w.use(0)
	}
	return err
}

func (w *worker) secret(i int) (secret seal.Secret, err error) {
	_, err = w.secrets.ReadAt(secret[:], int64(i)*int64(len(secret)))
	return secret, err
}

// fill creates all sessions from a number of callers. It returns the rate of each tenth.
func (w *worker) fill(callers int) (tenths []float64, err error) {
	for w.n < w.sessions {
		r, err := load.Times(min(max(w.sessions/10, 1), w.sessions-w.n), callers, func(i int) error {
			secret, err := w.Login(context.Background(), "")
			if err == nil {
				_, err = w.secrets.WriteAt(secret[:], int64(w.n+i)*int64(len(secret)))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		w.n += r.Calls
		tenths = append(tenths, r.Rate())
	}
	return tenths, nil
}

func (w *worker) login(int) error {
	_, err := w.Login(context.Background(), "")
	return err
}

// peek reads a session without using it, so that nothing is written.
func (w *worker) peek(int) error {
	secret, err := w.secret(rand.IntN(w.n))
	if err == nil {
		_, err = w.Peek(context.Background(), secret)
	}
	return err
}

// use uses a session as a proxied request does.
func (w *worker) use(i int) error {
	secret, err := w.secret(i)
	if err == nil {
		_, err = w.Fresh(context.Background(), secret)
	}
	return err
}

func (w *worker) request(int) error { return w.use(rand.IntN(w.n)) }

// refresh refreshes the next session. It does not wait until a slow store has written the tokens.
func (w *worker) refresh(int) error {
	secret, err := w.secret(int(w.next.Add(1)) % w.n)
	if err == nil {
		_, err = w.FreshSince(context.Background(), secret, time.Now())
	}
	return err
}

// refreshAndWrite is refresh, but waits until the tokens are written.
func (w *worker) refreshAndWrite(int) error {
	secret, err := w.secret(int(w.next.Add(1)) % w.n)
	if err != nil {
		return err
	}
	written := make(chan struct{})
	w.written.Store(w.Site.Ref(secret).ID, written)
	if _, err := w.FreshSince(context.Background(), secret, time.Now()); err != nil {
		return err
	}
	<-written
	return nil
}

func (w *worker) observe(e keeper.Event) {
	if e.Kind != keeper.EventRefreshed {
		return
	}
	if written, found := w.written.LoadAndDelete(e.ID); found {
		close(written.(chan struct{}))
	}
}

// within calls from all callers for a time, or at a rate per second if that is not 0.
func within(seconds float64, rate int, call func(i int) error) (load.Result, error) {
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	over := func() bool { return !time.Now().Before(end) }
	if rate > 0 {
		return load.Paced(rate, over, call)
	}
	return load.Each(stores.Callers, func(_, i int) error {
		if over() {
			return load.ErrDone
		}
		return call(i)
	})
}

// The load during a sweep, per second.
const (
	sweepRequests  = 500
	sweepRefreshes = sweepRequests / 5
)

// mixed sends requests and refreshes until the time is over, and prints their waits in milliseconds.
func (w *worker) mixed(name string, over func() bool, note func(took time.Duration) string) error {
	var reads, writes load.Result
	var readErr, writeErr error
	var both sync.WaitGroup
	begun := time.Now()
	both.Go(func() { reads, readErr = load.Paced(sweepRequests, over, w.request) })
	both.Go(func() { writes, writeErr = load.Paced(sweepRefreshes, over, w.refresh) })
	both.Wait()
	fmt.Printf("| %s | %.2f | %.1f | %.1f | %.1f | %.2f | %.1f | %.1f | %s |\n", name, millis(reads, 0.5), millis(reads, 0.99), millis(reads, 0.999), millis(reads, 1),
		millis(writes, 0.5), millis(writes, 0.99), millis(writes, 1), note(time.Since(begun)))
	return errors.Join(readErr, writeErr)
}

func millis(r load.Result, q float64) float64 { return float64(r.Quantile(q).Microseconds()) / 1000 }

// One in 100 of the expired items has sampleTag, by which they are counted. The sweep goes by hour and
// ID, so it removes lastExpired last, the item with lastTag.
const sampled = 100

var (
	lastExpired = session.ID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	sampleTag   = session.Tag{1}
	lastTag     = session.Tag{2}
)

// fillExpired creates items that expired in the same hour, for the next sweep: a tenth of the number of
// sessions. The keeper creates no expired sessions.
func (w *worker) fillExpired() error {
	const size = 3100           // of a sealed record
	time.Sleep(2 * time.Second) // until the sweep at the opening has ended
	expired := time.Now().Truncate(time.Hour).Add(-90 * time.Minute)
	_, err := load.Times(w.sessions/10, stores.Callers, func(i int) error {
		id, tags := session.ID(seal.NewSecret()), []session.Tag{session.Tag(seal.NewSecret()), session.Tag(seal.NewSecret())}
		if i%sampled == 0 {
			tags[0] = sampleTag
		}
		if i == 0 {
			id, tags[1] = lastExpired, lastTag
		}
		return w.Store.Create(context.Background(), id, session.Item{Version: 1, Expires: expired, Value: []byte(stores.Text(size)), Tags: tags})
	})
	return err
}

// sweep uses sessions during the sweep that began when the store was opened, and for as long without it.
func (w *worker) sweep(name string) error {
	expired, err := w.Store.Tagged(context.Background(), sampleTag)
	if err != nil {
		return err
	}
	var swept atomic.Bool
	go func() {
		for !swept.Load() {
			time.Sleep(5 * time.Millisecond)
			last, err := w.Store.Tagged(context.Background(), lastTag)
			swept.Store(err == nil && len(last) == 0)
		}
	}()
	begun := time.Now()
	if err := w.mixed(name, swept.Load, func(took time.Duration) string {
		return fmt.Sprintf("%d in %.1f s", sampled*len(expired), took.Seconds())
	}); err != nil {
		return err
	}
	end := time.Now().Add(min(max(time.Since(begun), 5*time.Second), time.Minute))
	return w.mixed("without", func() bool { return time.Now().After(end) }, func(time.Duration) string { return "" })
}
