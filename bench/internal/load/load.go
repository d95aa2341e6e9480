// Package load sends requests over kept-alive connections and measures how long
// each takes. Every answer has to be a 200 of the right length: one that is not
// ends the load with an error.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Target is what is asked for.
type Target struct {
	Addr    string   // host and port to connect to
	Host    string   // of the request
	Size    int      // of the answer in bytes, which is also its path
	HTTP2   bool     // over cleartext; else HTTP/1.1
	Cookies []string // Cookie headers of one length, of which a request has one, unless it is empty
}

// An asker has a request answered. A worker has one of its own.
type asker interface {
	ask(cookie string) error
	close()
}

// answerLimit bounds how long an answer may take.
const answerLimit = 30 * time.Second

// Load is under way from Start to Stop.
type Load struct {
	workers   []*worker
	done      sync.WaitGroup
	recording atomic.Bool
	stopping  atomic.Bool
	failed    atomic.Pointer[error]
	begun     time.Time
	elapsed   time.Duration
}

type worker struct {
	asker
	rand *rand.Rand
	took []time.Duration // while recording
	all  int             // requests, recorded or not
}

// Start opens connections, and sends requests over all of them from then on, one
// at a time on each of `concurrency` HTTP/1.1 connections or HTTP/2 streams.
// Cookies are drawn at random. It returns when every worker had an answer.
func Start(ctx context.Context, t Target, concurrency int) (*Load, error) {
	l := &Load{}
	askers, err := connect(ctx, t, concurrency)
	if err != nil {
		return nil, err
	}
	var first sync.WaitGroup
	for i, a := range askers {
		w := &worker{asker: a, rand: rand.New(rand.NewPCG(uint64(i), 1))}
		l.workers = append(l.workers, w)
		first.Add(1)
		l.done.Go(func() { l.work(t, w, first.Done) })
	}
	first.Wait()
	return l, nil
}

// connect makes the askers of a load. Without error there are n.
func connect(ctx context.Context, t Target, n int) (askers []asker, err error) {
	defer func() {
		if err != nil {
			for _, a := range askers {
				a.close()
			}
		}
	}()
	if t.HTTP2 {
		return connectHTTP2(t, n), nil
	}
	for range n {
		c, err := dial(ctx, t)
		if err != nil {
			return askers, err
		}
		askers = append(askers, c)
	}
	return askers, nil
}

// work asks until the load stops. It calls first after the first answer.
func (l *Load) work(t Target, w *worker, first func()) {
	for !l.stopping.Load() {
		sent := time.Now()
		err := w.ask(w.draw(t.Cookies))
		took := time.Since(sent)
		if first != nil {
			first()
			first = nil
		}
		if err != nil {
			l.failed.CompareAndSwap(nil, &err)
			return
		}
		w.all++
		if l.recording.Load() {
			w.took = append(w.took, took)
		}
	}
	if first != nil {
		first()
	}
}

func (w *worker) draw(cookies []string) string {
	switch len(cookies) {
	case 0:
		return ""
	case 1:
		return cookies[0]
	}
	return cookies[w.rand.IntN(len(cookies))]
}

// Begin starts the recording.
func (l *Load) Begin() {
	l.begun = time.Now()
	l.recording.Store(true)
}

// End ends the recording.
func (l *Load) End() {
	l.recording.Store(false)
	l.elapsed = time.Since(l.begun)
}

// Stop ends the load when the requests under way are answered, and returns what
// was recorded.
func (l *Load) Stop() (Result, error) {
	l.stopping.Store(true)
	l.done.Wait()
	r := Result{Elapsed: l.elapsed}
	for _, w := range l.workers {
		w.close()
		r.All += w.all
		r.Took = append(r.Took, w.took...)
	}
	if err := l.failed.Load(); err != nil {
		return Result{}, *err
	}
	if len(r.Took) == 0 {
		return Result{}, errors.New("no request was answered while the load was recorded")
	}
	slices.Sort(r.Took)
	return r, nil
}

// Once sends one request with each cookie over as many connections as
// concurrency says, which are opened before the first is sent. The requests are
// spread evenly over a time, or with none sent as soon as possible.
func Once(ctx context.Context, t Target, concurrency int, spread time.Duration) (Result, error) {
	return once(ctx, t, concurrency, spread, false)
}

// Try is like Once with a connection for each request, but goes on when an answer
// is not a 200 of the right length, or none comes. What the result says is of all
// requests.
func Try(ctx context.Context, t Target, spread time.Duration) (Result, error) {
	return once(ctx, t, len(t.Cookies), spread, true)
}

// once is what Once and Try are. The connection of a request that has failed is
// not used again, so to tolerate that takes as many of them as there are cookies.
func once(ctx context.Context, t Target, concurrency int, spread time.Duration, tolerate bool) (Result, error) {
	askers, err := connect(ctx, t, min(concurrency, len(t.Cookies)))
	if err != nil {
		return Result{}, err
	}
	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		all    sync.WaitGroup
	)
	took := make([]time.Duration, len(t.Cookies))
	begun := time.Now()
	// Not as soon as one is done: browsers keep their connections.
	defer func() {
		for _, a := range askers {
			a.close()
		}
	}()
	for _, a := range askers {
		all.Go(func() {
			for (tolerate || failed.Load() == nil) && ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= len(t.Cookies) {
					return
				}
				time.Sleep(time.Until(begun.Add(spread * time.Duration(i) / time.Duration(len(t.Cookies)))))
				sent := time.Now()
				err := a.ask(t.Cookies[i])
				took[i] = time.Since(sent)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil && !tolerate {
		return Result{}, *err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	slices.Sort(took)
	return Result{All: len(took), Took: took, Elapsed: time.Since(begun)}, nil
}

// Result is what a load saw.
type Result struct {
	All     int             // answers, also before and after the recording
	Took    []time.Duration // of those recorded, sorted
	Elapsed time.Duration   // of the recording
}

// Quantile returns the time within which that part of the requests was answered.
// There must be a request.
func (r Result) Quantile(q float64) time.Duration {
	i := int(q * float64(len(r.Took)))
	return r.Took[min(i, len(r.Took)-1)]
}

// A StatusError is an answer that is not the app's.
type StatusError struct {
	Status int
	Size   int // in bytes; -1: not told
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("a request was answered with status %d and %d bytes", e.Status, e.Size)
}
