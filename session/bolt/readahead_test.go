package bolt

import (
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// chunks is a file that records the offsets of its reads.
type chunks struct {
	size int64
	err  error

	mu      sync.Mutex
	offsets []int64
	latency time.Duration
}

func (c *chunks) reads() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.offsets))
}

func (c *chunks) ReadAt(b []byte, offset int64) (int, error) {
	c.mu.Lock()
	c.offsets = append(c.offsets, offset)
	c.mu.Unlock()
	time.Sleep(c.latency)
	if c.err != nil {
		return 0, c.err
	}
	if left := c.size - offset; left < int64(len(b)) {
		return int(left), io.EOF
	}
	return len(b), nil
}

func TestReadAheadReadsTheWholeFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunks{size: 20*readAheadChunk + 1}
		defer readAhead(c, c.size)()
		synctest.Wait()
		if len(c.reads()) > 0 {
			t.Errorf("got reads at %d within readAheadDelay, want none", c.reads())
		}
		time.Sleep(readAheadDelay)
		synctest.Wait()
		for i, offset := range c.reads() {
			if offset != int64(i)*readAheadChunk {
				t.Errorf("read %d: got offset %d, want %d", i, offset, i*readAheadChunk)
			}
		}
		if len(c.reads()) != 21 {
			t.Errorf("got %d reads, want 21", len(c.reads()))
		}
	})
}

func TestReadAheadStopsWithinOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunks{size: 1 << 30, latency: time.Second}
		stop := readAhead(c, c.size)
		time.Sleep(10 * time.Second)
		start := time.Now()
		stop()
		if len(c.reads()) == 0 {
			t.Error("got no reads, want some before stop")
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("stop took %v, want at most 1s, the duration of one read", took)
		}
		stop = readAhead(c, c.size)
		before := len(c.reads())
		stop() // within readAheadDelay, as with a saved list of free pages
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(c.reads()) != before {
			t.Errorf("got %d reads after stop, want none", len(c.reads())-before)
		}
	})
}

func TestReadAheadEndsAtAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunks{size: 1 << 40, err: errors.New("file already closed")}
		defer readAhead(c, c.size)()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(c.reads()); n != readAheadStreams {
			t.Errorf("got %d reads, want %d, one for each stream", n, readAheadStreams)
		}
	})
}
