// Package load makes calls from many workers and measures the time of each. The calls are functions
// or HTTP requests.
package load

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

// A Result holds the times of calls.
type Result struct {
	Calls   int             // including calls that were not recorded
	Failed  int             // with Once
	Took    []time.Duration // of the recorded calls, sorted
	Elapsed time.Duration   // of the recording
}

// Quantile returns the time within which a share q of the calls ended, or 0 without calls.
func (r Result) Quantile(q float64) time.Duration {
	if len(r.Took) == 0 {
		return 0
	}
	return r.Took[min(int(q*float64(len(r.Took))), len(r.Took)-1)]
}

// Rate returns the recorded calls per second.
func (r Result) Rate() float64 { return float64(len(r.Took)) / r.Elapsed.Seconds() }

// Each calls a function with 0, 1, 2, … from a number of workers, until a call of each worker has
// returned false. Such a call is not counted. A failed check ends all workers and the caller.
func Each(workers int, call func(worker, i int) (more bool)) Result {
	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		all    sync.WaitGroup
	)
	took := make([][]time.Duration, workers)
	begun := time.Now()
	for w := range workers {
		all.Go(func() {
			err := check.Run(func() {
				for failed.Load() == nil {
					called := time.Now()
					if !call(w, int(next.Add(1)-1)) {
						return
					}
					took[w] = append(took[w], time.Since(called))
				}
			})
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		check.OK(*err)
	}
	return ResultOf(slices.Concat(took...), time.Since(begun))
}

// Times calls a function with 0 to n-1 from a number of workers.
func Times(n, workers int, call func(i int)) Result {
	return Each(workers, func(_, i int) bool {
		if i < n {
			call(i)
		}
		return i < n
	})
}

// Paced calls a function at a rate per second until over returns true. No call waits for an earlier
// one, so a pause of the callee delays all calls that fall into it. It fails with the last failed
// check of a call.
func Paced(rate int, over func() bool, call func(i int)) Result {
	var (
		mu     sync.Mutex
		took   []time.Duration
		failed error
		all    sync.WaitGroup
	)
	begun := time.Now()
	for i := 0; !over(); i++ {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		all.Go(func() {
			called := time.Now()
			err := check.Run(func() { call(i) })
			wait := time.Since(called)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, wait)
			if err != nil {
				failed = err
			}
		})
	}
	all.Wait()
	check.OK(failed)
	return ResultOf(took, time.Since(begun))
}

// ResultOf sorts the times of calls.
func ResultOf(took []time.Duration, elapsed time.Duration) Result {
	slices.Sort(took)
	return Result{Calls: len(took), Took: took, Elapsed: elapsed}
}

// During sends requests while f runs, one at a time over each of n HTTP/1.1 connections or HTTP/2
// streams. Each request carries a random cookie of the target. Every answer must be 200 with the right
// length. f calls record once, which records the answers that arrive within a time. On a very busy
// machine it waits for the first.
func During(ctx context.Context, t Target, n int, f func(record func(time.Duration))) Result {
	clients := connect(ctx, t, n)
	defer closeAll(clients)
	var (
		recording, stopping atomic.Bool
		recorded            atomic.Int64
		elapsed             time.Duration
		all                 Result
		err                 error
	)
	took := make([][]time.Duration, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer recorded.Add(1) // after an error, record must not wait any longer
		err = check.Run(func() {
			all = Each(n, func(w, _ int) bool {
				if stopping.Load() {
					return false
				}
				sent := time.Now()
				check.OK(clients[w].get(t.Cookies[rand.IntN(len(t.Cookies))]))
				if recording.Load() {
					took[w] = append(took[w], time.Since(sent))
					recorded.Add(1)
				}
				return true
			})
		})
	}()
	f(func(d time.Duration) {
		begun := time.Now()
		recording.Store(true)
		for time.Sleep(d); recorded.Load() == 0; {
			time.Sleep(time.Millisecond)
		}
		recording.Store(false)
		elapsed = time.Since(begun)
	})
	stopping.Store(true)
	<-done
	check.OK(err)
	r := ResultOf(slices.Concat(took...), elapsed)
	r.Calls = all.Calls
	return r
}

// Once sends one request with each cookie, spread evenly over a time, over n connections that are
// open before the first request. The connections stay open until the end, as those of browsers do.
// With tolerate a wrong answer is recorded like any other and ends the use of its connection, so n
// must be the number of cookies.
func Once(ctx context.Context, t Target, n int, spread time.Duration, tolerate bool) Result {
	clients := connect(ctx, t, min(n, len(t.Cookies)))
	defer closeAll(clients)
	took := make([]time.Duration, len(t.Cookies))
	var failed atomic.Int64
	begun := time.Now()
	Each(len(clients), func(w, i int) bool {
		if i >= len(took) {
			return false
		}
		check.OK(ctx.Err())
		time.Sleep(time.Until(begun.Add(spread * time.Duration(i) / time.Duration(len(took)))))
		sent := time.Now()
		err := clients[w].get(t.Cookies[i])
		took[i] = time.Since(sent)
		if err != nil && tolerate {
			failed.Add(1)
			return false
		}
		check.OK(err)
		return true
	})
	r := ResultOf(took, time.Since(begun))
	r.Failed = int(failed.Load())
	return r
}
