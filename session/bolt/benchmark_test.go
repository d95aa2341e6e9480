package bolt

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/storetest"
)

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) session.Store { return open(b, newPath(b)) })
}

// BenchmarkView reads from 100,000 items of 3 KB. The IDs are spread like hashes.
func BenchmarkView(b *testing.B) {
	const items = 100_000
	s := open(b, newPath(b))
	id := func(n int) (id session.ID) {
		binary.LittleEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15)
		return id
	}
	item := session.Item{Version: 1, Expires: time.Now().Add(24 * time.Hour), Value: make([]byte, 3000)}
	for n := 0; n < items; n += 1000 {
		err := s.write(b.Context(), s.writes, func(tx *bbolt.Tx) error {
			for i := n; i < n+1000; i++ {
				if err := putItem(tx, id(i), encodeItem(item)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	read := func() error { return view(b, s, id(rand.IntN(items))) }
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := read(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := read(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
