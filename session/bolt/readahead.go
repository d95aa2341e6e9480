package bolt

import (
	"context"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// readAheadDelay is the time after which bbolt must be scanning for free pages.
	// Opening a file with a list of free pages takes milliseconds.
	readAheadDelay = 100 * time.Millisecond

	// A network disk reaches its full throughput only with several reads in flight.
	readAheadStreams = 8
	readAheadChunk   = 256 << 10
)

// readAhead reads a file from beginning to end into the page cache, until stop is
// called.
//
// After a crash, bbolt reads every page to find the free ones, one at a time and in
// the order of its tree. If the computer was restarted too, these are random reads
// from the disk, at a twentieth of its sequential throughput. The reason for this
// code is in docs/decisions/0024-the-committer-of-bolt.md.
func readAhead(r io.ReaderAt, size int64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var next atomic.Int64
	var streams sync.WaitGroup
	for range readAheadStreams {
		streams.Go(func() {
			select {
			case <-time.After(readAheadDelay):
			case <-ctx.Done():
				return
			}
			chunk := make([]byte, readAheadChunk)
			for ctx.Err() == nil {
				offset := next.Add(readAheadChunk) - readAheadChunk
				if offset >= size {
					return
				}
				if n, _ := r.ReadAt(chunk, offset); n == 0 {
					return // bbolt reads the same page and reports the error
				}
			}
		})
	}
	return func() {
		cancel()
		streams.Wait()
	}
}

// withReadAhead wraps an opener: the returned one starts a readAhead of the file, until
// stop is called.
func withReadAhead(open opener) (wrapped opener, stop func()) {
	stopReading := func() {}
	return func(name string, flag int, mode fs.FileMode) (*os.File, error) {
		f, err := open(name, flag, mode)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil {
			stopReading = readAhead(f, info.Size())
		}
		return f, nil
	}, func() { stopReading() }
}
