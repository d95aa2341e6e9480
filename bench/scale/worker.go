package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
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
func (w *worker) open() {
	w.secrets = check.Value(os.OpenFile(w.secretsFile, os.O_RDWR|os.O_CREATE, 0o600))
	w.n = int(check.Value(w.secrets.Stat()).Size()) / len(seal.Secret{})
	w.Sessions = stores.Open(stores.Config{
		Place: w.place, Key: check.Value(seal.ParseKey(w.key)), Issuer: "https://login.example.com", IDTokens: w.idToken.Load, Observe: w.observe,
	})
	if w.n > 0 {
		w.use(0)
	}
}

func (w *worker) secret(i int) (secret seal.Secret) {
	check.Value(w.secrets.ReadAt(secret[:], int64(i)*int64(len(secret))))
	return secret
}

// fill creates all sessions from a number of callers. It returns the rate of each tenth.
func (w *worker) fill(callers int) (tenths []float64) {
	for w.n < w.sessions {
		r := load.Times(min(max(w.sessions/10, 1), w.sessions-w.n), callers, func(i int) {
			secret := w.Login("")
			check.Value(w.secrets.WriteAt(secret[:], int64(w.n+i)*int64(len(secret))))
		})
		w.n += r.Calls
		tenths = append(tenths, r.Rate())
	}
	return tenths
}

func (w *worker) login(int) { w.Login("") }

// peek reads a session without using it, so that nothing is written.
func (w *worker) peek(int) { check.Value(w.Peek(context.Background(), w.secret(rand.IntN(w.n)))) }

// use uses a session as a proxied request does.
func (w *worker) use(i int) { check.Value(w.Fresh(context.Background(), w.secret(i))) }

func (w *worker) request(int) { w.use(rand.IntN(w.n)) }

// refresh refreshes the next session. It does not wait until a slow store has written the tokens.
func (w *worker) refresh(int) {
	check.Value(w.FreshSince(context.Background(), w.secret(int(w.next.Add(1))%w.n), time.Now()))
}

// refreshAndWrite is refresh, but waits until the tokens are written.
func (w *worker) refreshAndWrite(int) {
	secret, written := w.secret(int(w.next.Add(1))%w.n), make(chan struct{})
	w.written.Store(w.Site.Ref(secret).ID, written)
	check.Value(w.FreshSince(context.Background(), secret, time.Now()))
	<-written
}

func (w *worker) observe(e keeper.Event) {
	if e.Kind == keeper.EventRefreshed {
		if written, found := w.written.LoadAndDelete(e.ID); found {
			close(written.(chan struct{}))
		}
	}
}

// within calls from all callers for a time, or at a rate per second if that is not 0.
func within(seconds float64, rate int, call func(i int)) load.Result {
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	if rate > 0 {
		return load.Paced(rate, func() bool { return !time.Now().Before(end) }, call)
	}
	return load.Each(stores.Callers, func(_, i int) bool {
		if !time.Now().Before(end) {
			return false
		}
		call(i)
		return true
	})
}

// The load during a sweep, per second.
const (
	sweepRequests  = 500
	sweepRefreshes = sweepRequests / 5
)

// mixed sends requests and refreshes until the time is over. It prints their waits in milliseconds, without
// the last column, and returns how long they took.
func (w *worker) mixed(name string, over func() bool) time.Duration {
	var writes load.Result
	var failed error
	var both sync.WaitGroup
	begun := time.Now()
	both.Go(func() { failed = check.Run(func() { writes = load.Paced(sweepRefreshes, over, w.refresh) }) })
	reads := load.Paced(sweepRequests, over, w.request)
	both.Wait()
	check.OK(failed)
	fmt.Printf("| %s | %.2f | %.1f | %.1f | %.1f | %.2f | %.1f | %.1f |", name, millis(reads, 0.5), millis(reads, 0.99), millis(reads, 0.999), millis(reads, 1),
		millis(writes, 0.5), millis(writes, 0.99), millis(writes, 1))
	return time.Since(begun)
}

func millis(r load.Result, q float64) float64 { return float64(r.Quantile(q).Microseconds()) / 1000 }

// The sweep goes by hour and ID, so it removes lastExpired last, the item with lastTag.
var (
	lastExpired = session.ID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	lastTag     = session.Tag{1}
)

// fillExpired creates items that expired in the same hour, for the next sweep: a tenth of the number of
// sessions. The keeper creates no expired sessions.
func (w *worker) fillExpired() {
	const size = 3100           // of a sealed record
	time.Sleep(2 * time.Second) // until the sweep at the opening has ended
	expired := time.Now().Truncate(time.Hour).Add(-90 * time.Minute)
	load.Times(w.sessions/10, stores.Callers, func(i int) {
		id, tags := session.ID(seal.NewSecret()), []session.Tag{session.Tag(seal.NewSecret()), session.Tag(seal.NewSecret())}
		if i == 0 {
			id, tags[0] = lastExpired, lastTag
		}
		check.OK(w.Store.Create(context.Background(), id, session.Item{Version: 1, Expires: expired, Value: []byte(stores.Text(size)), Tags: tags}))
	})
}

// sweep uses sessions during the sweep that began when the store was opened, and for as long without it.
func (w *worker) sweep(name string) {
	var swept atomic.Bool
	go func() {
		for !swept.Load() {
			time.Sleep(5 * time.Millisecond)
			last, err := w.Store.Tagged(context.Background(), lastTag)
			swept.Store(err == nil && len(last) == 0)
		}
	}()
	took := w.mixed(name, swept.Load)
	fmt.Printf(" %d in %.1f s |\n", w.sessions/10, took.Seconds())
	end := time.Now().Add(min(max(took, 5*time.Second), time.Minute))
	w.mixed("without", func() bool { return time.Now().After(end) })
	fmt.Println("  |")
}
