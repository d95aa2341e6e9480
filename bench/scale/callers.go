package main

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// callers is how many ask at a time. A transaction of bolt has as many writes.
const callers = 256

// waits are how long those waited who called, in milliseconds.
type waits struct {
	N                          int
	Median, P99, P999, Longest float64
}

func waitsOf(took []time.Duration) waits {
	if len(took) == 0 {
		return waits{}
	}
	slices.Sort(took)
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
	}
	return waits{N: len(took), Median: at(0.5), P99: at(0.99), P999: at(0.999), Longest: at(1)}
}

// together calls f from all callers, with rising numbers, until it says false
// or fails. Those calls do not count.
func together(f func(i int) (more bool, err error)) (waits, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	took := make([][]time.Duration, callers)
	for c := range callers {
		all.Go(func() {
			for failed.Load() == nil {
				begun := time.Now()
				more, err := f(int(next.Add(1) - 1))
				if err != nil {
					failed.CompareAndSwap(nil, &err)
				}
				if !more {
					return
				}
				took[c] = append(took[c], time.Since(begun))
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return waits{}, *err
	}
	return waitsOf(slices.Concat(took...)), nil
}

// paced calls f at a rate a second until it is over. No call waits for one
// before it, so that a store which stops for a moment delays all that would
// have come.
func paced(rate int, over func() bool, f func() error) (waits, error) {
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var all sync.WaitGroup
	begun := time.Now()
	for i := 0; !over(); i++ {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		all.Go(func() {
			called := time.Now()
			err := f()
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
	return waitsOf(took), failed
}
