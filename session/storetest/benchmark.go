package storetest

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// benchmarkItems is the number of items in a benchmarked store.
const benchmarkItems = 1000

// Benchmark measures View and Replace of a store with 1,000 items of 3 KB, called by 16
// goroutines for each processor. Each benchmark opens a store. The function open
// registers its Close with b.Cleanup.
func Benchmark(b *testing.B, open func(b *testing.B) session.Store) {
	b.Run("View", func(b *testing.B) {
		store := open(b)
		ids := fill(b, store)
		var workers atomic.Int64
		inParallel(b, func() func() error {
			next := int(workers.Add(1))
			return func() error {
				next++
				return store.View(b.Context(), ids[next%len(ids)], func(session.Item) error { return nil })
			}
		})
	})
	b.Run("Replace", func(b *testing.B) {
		store := open(b)
		fill(b, store)
		inParallel(b, func() func() error {
			id, item := newID(), benchmarkItem()
			if err := store.Create(b.Context(), id, item); err != nil {
				b.Error(err)
			}
			return func() error {
				item.Version++
				return store.Replace(b.Context(), id, item)
			}
		})
	})
}

func fill(b *testing.B, store session.Store) []session.ID {
	ids := make([]session.ID, benchmarkItems)
	for i := range ids {
		ids[i] = newID()
		if err := store.Create(b.Context(), ids[i], benchmarkItem()); err != nil {
			b.Fatal(err)
		}
	}
	return ids
}

func benchmarkItem() session.Item {
	item := newProbe(nil).item(1, "")
	item.Value = bytes.Repeat([]byte{'x'}, 3000)
	return item
}

// inParallel runs 16 goroutines for each processor. Each of them calls worker once, and
// the returned function repeatedly.
func inParallel(b *testing.B, worker func() func() error) {
	b.ReportAllocs()
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		work := worker()
		for pb.Next() {
			if err := work(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
