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
	// readAheadAfter is how long bbolt may take to open a file whose free pages
	// are known. It takes milliseconds.
	readAheadAfter = 100 * time.Millisecond

	// Disks at the other end of a network give their best only to several
	// reads at a time.
	readAheadStreams = 8
	readAheadChunk   = 256 << 10
)

// readAhead reads a file from its beginning to its end, until stop is called.
//
// After a crash bbolt looks at every page to find the free ones, in the order
// of its tree and one at a time. Where the computer was restarted too, each is
// a read of the disk at another place, a twentieth of what the disk gives in
// order. What is read here is in the page cache when bbolt comes to it.
func readAhead(r io.ReaderAt, size int64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var next atomic.Int64
	var streams sync.WaitGroup
	for range readAheadStreams {
		streams.Go(func() {
			select {
			case <-time.After(readAheadAfter):
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
					return // bbolt will meet the error where it matters
				}
			}
		})
	}
	return func() {
		cancel()
		streams.Wait()
	}
}

// ahead is an opener that reads ahead in what it opens, until stop is called.
func ahead(open opener) (opening opener, stop func()) {
	stopped := func() {}
	return func(name string, flag int, mode fs.FileMode) (*os.File, error) {
		f, err := open(name, flag, mode)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil {
			stopped = readAhead(f, info.Size())
		}
		return f, nil
	}, func() { stopped() }
}
