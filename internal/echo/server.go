package echo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxLog bounds the request log; the oldest requests go first.
const maxLog = 20_000

// idleTimeout ends connections on which nothing happens.
const idleTimeout = 20 * time.Minute

// Options of a server.
type Options struct {
	// Check, if set, judges the bearer token of each request, "" if there is
	// not exactly one. False gives 401 and counts in Rejected.
	Check func(token string) bool
	// HideAuthorization keeps the values of Authorization out of the answers,
	// for tests that look for tokens in what a browser gets. The log is whole.
	HideAuthorization bool
}

// Server is a running echo app.
type Server struct {
	// URL is its address, such as http://127.0.0.1:40000.
	URL string

	check    func(string) bool
	hide     bool
	listener net.Listener
	closing  chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex
	log      []Request
	rejected int
	conns    map[net.Conn]struct{}
	accepted int
	streams  int
	// changed is closed and renewed whenever streams changes.
	changed chan struct{}
}

// Start runs a server on a free loopback port until the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		URL: "http://" + listener.Addr().String(), check: opts.Check, hide: opts.HideAuthorization, listener: listener,
		closing: make(chan struct{}), conns: map[net.Conn]struct{}{}, changed: make(chan struct{}),
	}
	s.running.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

// Addr is the server's host and port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Requests returns the logged requests, oldest first. A request is logged
// before it is answered.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Reset empties the log and the count of rejected requests.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.rejected = nil, 0
}

// Rejected counts the requests whose token Options.Check refused.
func (s *Server) Rejected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rejected
}

// Streams is the number of open WebSockets and event streams.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// WaitStreams returns once exactly n WebSockets and event streams are open.
func (s *Server) WaitStreams(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		now, changed := s.streams, s.changed
		s.mu.Unlock()
		if now == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d streams, %d are open: %w", n, now, ctx.Err())
		}
	}
}

// stream counts a stream, and returns the function that ends it.
func (s *Server) stream() (end func()) {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams += n
		close(s.changed)
		s.changed = make(chan struct{})
	}
	add(1)
	return func() { add(-1) }
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		number, ok := s.admit(conn)
		if !ok {
			_ = conn.Close()
			return
		}
		s.running.Go(func() {
			s.serve(conn, number)
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			_ = conn.Close()
		})
	}
}

// admit books a connection, unless the server has begun to close and would
// no longer find it.
func (s *Server) admit(conn net.Conn) (number int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return 0, false
	default:
	}
	s.accepted++
	s.conns[conn] = struct{}{}
	return s.accepted, true
}

func (s *Server) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	close(s.closing)
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// serve answers the requests of one connection.
func (s *Server) serve(conn net.Conn, number int) {
	in := &reader{Reader: bufio.NewReader(conn)}
	for {
		if conn.SetDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		req, err := in.head()
		if err == nil {
			if strings.EqualFold(strings.Join(req.Values("Expect"), ","), "100-continue") {
				_, _ = conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
			}
			err = in.body(&req)
		}
		if err != nil && !errors.Is(err, errMalformed) {
			return // the client has gone, or gone silent
		}
		req.Conn = number
		if err != nil {
			req.Malformed = err.Error()
		}
		rejected := s.book(req)
		x := &exchange{server: s, conn: conn, in: in, req: req}
		if keep := x.answer(rejected); !keep || err != nil || req.closes() {
			return
		}
	}
}

// book logs a request and says whether its token is refused.
func (s *Server) book(req Request) (rejected bool) {
	rejected = req.Malformed == "" && s.check != nil && !s.check(req.Bearer())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) == maxLog {
		s.log = slices.Delete(s.log, 0, maxLog/10) // not one by one: that would copy the log each time
	}
	s.log = append(s.log, req)
	if rejected {
		s.rejected++
	}
	return rejected
}
