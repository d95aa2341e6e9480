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

// maxLog bounds the request log. The oldest requests are dropped first.
const maxLog = 20_000

// idleTimeout bounds the time from one request on a connection to the next.
const idleTimeout = 20 * time.Minute

// Options of a server.
type Options struct {
	// Check, if set, validates the bearer token of each request. The token is
	// "" unless the request has exactly one. If Check returns false, the server
	// answers 401 and counts the request in Rejected.
	Check func(token string) bool
	// HideAuthorization omits the values of Authorization from the answers, for
	// tests that search the browser's traffic for tokens. The log keeps them.
	HideAuthorization bool
}

// Server is a running echo app.
type Server struct {
	// URL is the server's address, such as http://127.0.0.1:40000.
	URL string

	check             func(string) bool
	hideAuthorization bool
	listener          net.Listener
	closing           chan struct{}
	running           sync.WaitGroup

	mu       sync.Mutex
	log      []Request
	rejected int
	conns    map[net.Conn]struct{}
	accepted int
	streams  int
	// streamsChanged is closed and replaced whenever streams changes.
	streamsChanged chan struct{}
}

// Start runs a server on a free loopback port until the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		URL: "http://" + listener.Addr().String(), check: opts.Check, hideAuthorization: opts.HideAuthorization, listener: listener,
		closing: make(chan struct{}), conns: map[net.Conn]struct{}{}, streamsChanged: make(chan struct{}),
	}
	s.running.Go(s.accept)
	t.Cleanup(s.close)
	return s
}

// Addr returns the server's host and port.
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

// Rejected counts the requests that Options.Check refused.
func (s *Server) Rejected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rejected
}

// Streams returns the number of open WebSockets and event streams.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// WaitStreams returns once exactly n WebSockets and event streams are open.
func (s *Server) WaitStreams(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		open, changed := s.streams, s.streamsChanged
		s.mu.Unlock()
		if open == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d streams, %d are open: %w", n, open, ctx.Err())
		}
	}
}

// countStream counts an open stream until the returned function is called.
func (s *Server) countStream() (end func()) {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams += n
		close(s.streamsChanged)
		s.streamsChanged = make(chan struct{})
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
		number, ok := s.register(conn)
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

// register adds a connection to conns, so that close ends it. It fails once
// the server closes.
func (s *Server) register(conn net.Conn) (number int, ok bool) {
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
			return // the client has disconnected, or the connection is idle
		}
		req.Conn = number
		if err != nil {
			req.Malformed = err.Error()
		}
		rejected := s.record(req)
		x := &exchange{server: s, conn: conn, in: in, req: req}
		if keepAlive := x.answer(rejected); !keepAlive || err != nil || req.closes() {
			return
		}
	}
}

// record logs a request and reports whether Options.Check refuses it.
func (s *Server) record(req Request) (rejected bool) {
	rejected = req.Malformed == "" && s.check != nil && !s.check(req.Bearer())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) == maxLog {
		s.log = slices.Delete(s.log, 0, maxLog/10) // each deletion copies the log
	}
	s.log = append(s.log, req)
	if rejected {
		s.rejected++
	}
	return rejected
}
