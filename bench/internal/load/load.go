// Package load makes calls from many workers and measures the time of each. The calls are functions
// or HTTP requests.
package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrDone ends the worker whose call returns it. The call is not counted.
var ErrDone = errors.New("no further call")

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
	i := int(q * float64(len(r.Took)))
	return r.Took[min(i, len(r.Took)-1)]
}

// Rate returns the recorded calls per second.
func (r Result) Rate() float64 { return float64(len(r.Took)) / r.Elapsed.Seconds() }

// Each calls a function with 0, 1, 2, … from a number of workers, until each worker has received
// ErrDone. Any other error ends all workers and is returned.
func Each(workers int, call func(worker, i int) error) (Result, error) {
	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		all    sync.WaitGroup
	)
	took := make([][]time.Duration, workers)
	begun := time.Now()
	for w := range workers {
		all.Go(func() {
			for failed.Load() == nil {
				called := time.Now()
				err := call(w, int(next.Add(1)-1))
				if errors.Is(err, ErrDone) {
					return
				}
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				took[w] = append(took[w], time.Since(called))
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return Result{}, *err
	}
	return ResultOf(slices.Concat(took...), time.Since(begun)), nil
}

// Times calls a function with 0 to n-1 from a number of workers.
func Times(n, workers int, call func(i int) error) (Result, error) {
	return Each(workers, func(_, i int) error {
		if i >= n {
			return ErrDone
		}
		return call(i)
	})
}

// Paced calls a function at a rate per second until over returns true. No call waits for an earlier
// one, so a pause of the callee delays all calls that fall into it. The error is that of the last
// call that failed.
func Paced(rate int, over func() bool, call func(i int) error) (Result, error) {
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
			err := call(i)
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
	return ResultOf(took, time.Since(begun)), failed
}

// ResultOf sorts the times of calls.
func ResultOf(took []time.Duration, elapsed time.Duration) Result {
	slices.Sort(took)
	return Result{Calls: len(took), Took: took, Elapsed: elapsed}
}

// A Load sends requests from Start to Stop. Every answer must be 200 with the right length; any
// other answer ends the load with an error.
type Load struct {
	recording, stopping atomic.Bool
	recorded            atomic.Int64
	took                [][]time.Duration // of recorded requests, by worker
	elapsed             time.Duration
	done                chan struct{}
	all                 Result // valid once done is closed, as is err
	err                 error
}

// Start opens connections and sends requests, one at a time over each of n HTTP/1.1 connections or
// HTTP/2 streams. Each request carries a random cookie of the target.
func Start(ctx context.Context, t Target, n int) (*Load, error) {
	clients, err := connect(ctx, t, n)
	if err != nil {
		return nil, err
	}
	l := &Load{took: make([][]time.Duration, n), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer closeAll(clients)
		l.all, l.err = Each(n, func(w, _ int) error {
			if l.stopping.Load() {
				return ErrDone
			}
			cookie := ""
			if len(t.Cookies) > 0 {
				cookie = t.Cookies[rand.IntN(len(t.Cookies))]
			}
			sent := time.Now()
			if err := clients[w].get(cookie); err != nil {
				return err
			}
			if l.recording.Load() {
				l.took[w] = append(l.took[w], time.Since(sent))
				l.recorded.Add(1)
			}
			return nil
		})
	}()
	return l, nil
}

// Record records the answers that arrive within a time. On a very busy machine it waits for the first.
func (l *Load) Record(d time.Duration) {
	begun := time.Now()
	l.recording.Store(true)
	time.Sleep(d)
	for l.recorded.Load() == 0 {
		select {
		case <-l.done: // an error ended the load
			return
		case <-time.After(time.Millisecond):
		}
	}
	l.recording.Store(false)
	l.elapsed = time.Since(begun)
}

// Stop waits for the answers to open requests and returns the recorded times.
func (l *Load) Stop() (Result, error) {
	l.stopping.Store(true)
	<-l.done
	if l.err != nil {
		return Result{}, l.err
	}
	r := ResultOf(slices.Concat(l.took...), l.elapsed)
	if r.Calls == 0 {
		return Result{}, errors.New("no answer arrived during the recording")
	}
	r.Calls = l.all.Calls
	return r, nil
}

// Once sends one request with each cookie, spread evenly over a time, over n connections that are
// open before the first request. The connections stay open until the end, as those of browsers do.
// With tolerate a wrong answer is recorded like any other and ends the use of its connection, so n
// must be the number of cookies.
func Once(ctx context.Context, t Target, n int, spread time.Duration, tolerate bool) (Result, error) {
	clients, err := connect(ctx, t, min(n, len(t.Cookies)))
	if err != nil {
		return Result{}, err
	}
	defer closeAll(clients)
	took := make([]time.Duration, len(t.Cookies))
	var failed atomic.Int64
	begun := time.Now()
	_, err = Each(len(clients), func(w, i int) error {
		if i >= len(took) {
			return ErrDone
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(time.Until(begun.Add(spread * time.Duration(i) / time.Duration(len(took)))))
		sent := time.Now()
		err := clients[w].get(t.Cookies[i])
		took[i] = time.Since(sent)
		if err != nil && tolerate {
			failed.Add(1)
			return ErrDone
		}
		return err
	})
	r := ResultOf(took, time.Since(begun))
	r.Failed = int(failed.Load())
	return r, err
}
