package fleet

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Heap is what a process has allocated since its start, and what is in use.
type Heap struct {
	Objects float64
	Bytes   float64
	Live    float64 // bytes, with the garbage that has not been collected
}

// Minus returns what was allocated since an earlier look, and by how much the
// bytes in use have grown.
func (h Heap) Minus(earlier Heap) Heap {
	return Heap{h.Objects - earlier.Objects, h.Bytes - earlier.Bytes, h.Live - earlier.Live}
}

// Allocated asks a subject what it has allocated so far.
func (s *Subject) Allocated(ctx context.Context) (Heap, error) {
	var h Heap
	err := s.ask(ctx, "/metrics", func(body io.Reader) (err error) {
		h, err = parseHeap(body)
		return err
	})
	return h, err
}

// Live asks a subject how many bytes of its heap are in use, after a garbage
// collection.
func (s *Subject) Live(ctx context.Context) (int64, error) {
	discard := func(body io.Reader) error {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	if err := s.ask(ctx, "/debug/pprof/heap?gc=1", discard); err != nil {
		return 0, err
	}
	h, err := s.Allocated(ctx)
	return int64(h.Live), err
}

// parseHeap reads Prometheus' text format.
func parseHeap(r io.Reader) (Heap, error) {
	var h Heap
	found := 0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		var to *float64
		switch name {
		case "go_memstats_mallocs_total":
			to = &h.Objects
		case "go_memstats_alloc_bytes_total":
			to = &h.Bytes
		case "go_memstats_heap_alloc_bytes":
			to = &h.Live
		default:
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return Heap{}, fmt.Errorf("reading %s: %w", name, err)
		}
		*to = n
		found++
	}
	if err := lines.Err(); err != nil {
		return Heap{}, fmt.Errorf("reading metrics: %w", err)
	}
	if found != 3 {
		return Heap{}, fmt.Errorf("reading metrics: it does not tell what was allocated")
	}
	return h, nil
}

// adminLimit bounds a question to the admin endpoint.
const adminLimit = time.Minute

// ask asks a subject's admin endpoint, and has the answer read.
func (s *Subject) ask(ctx context.Context, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, adminLimit)
	defer cancel()
	via := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", s.admin)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1"+path, nil)
	if err != nil {
		return err
	}
	resp, err := via.Do(req)
	if err != nil {
		return fmt.Errorf("asking the admin endpoint of %s: %w", s.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the admin endpoint of %s for %s: status %d", s.Name, path, resp.StatusCode)
	}
	return read(resp.Body)
}
