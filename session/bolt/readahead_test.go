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

// chunks is a file that notes what is read of it.
type chunks struct {
	size int64
	err  error

	mu      sync.Mutex
	offsets []int64
	slow    time.Duration
}

func (c *chunks) read() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.offsets))
}

func (c *chunks) ReadAt(b []byte, offset int64) (int, error) {
	c.mu.Lock()
	c.offsets = append(c.offsets, offset)
	c.mu.Unlock()
	time.Sleep(c.slow)
	if c.err != nil {
		return 0, c.err
	}
	if left := c.size - offset; left < int64(len(b)) {
		return int(left), io.EOF
	}
	return len(b), nil
}

func TestReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunks{size: 20*readAheadChunk + 1}
		defer readAhead(c, c.size)()
		synctest.Wait()
		if len(c.read()) > 0 {
			t.Errorf("read at %d before bbolt had its time", c.read())
		}
		time.Sleep(readAheadAfter)
		synctest.Wait()
		for i, offset := range c.read() {
			if offset != int64(i)*readAheadChunk {
				t.Errorf("read at %d, want %d", offset, i*readAheadChunk)
			}
		}
		if len(c.read()) != 21 {
			t.Errorf("read %d chunks, want 21", len(c.read()))
		}
	})
}

func TestReadAheadStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunks{size: 1 << 30, slow: time.Second}
		stop := readAhead(c, c.size)
		time.Sleep(10 * time.Second)
		asked := time.Now()
		stop()
		if len(c.read()) == 0 {
			t.Error("nothing was read")
		}
		if took := time.Since(asked); took > time.Second {
			t.Errorf("it took %v to stop, want the time of one read at most", took)
		}
		stop = readAhead(c, c.size)
		before := len(c.read())
		stop() // at once, as when the free pages are known
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(c.read()) != before {
			t.Error("read although it was stopped")
		}
	})
}

func TestReadAheadEndsWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunks{size: 1 << 40, err: errors.New("file already closed")}
		defer readAhead(c, c.size)()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(c.read()); n != readAheadStreams {
			t.Errorf("%d reads, want one of each stream", n)
		}
	})
}
