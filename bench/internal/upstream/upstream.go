// Package upstream is the app behind the proxies: it answers with as little
// work as possible, and checks the token of every request.
package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// maxBody is the largest answer that can be asked for, in bytes.
const maxBody = 1 << 20

// Server answers GET /N with N bytes. It speaks as much HTTP/1.1 as a
// reverse proxy needs that relays requests without a body.
type Server struct {
	// Valid says whether an access token is good. It is set before the first
	// request, and keeps no token.
	Valid func(token []byte) bool

	listener net.Listener
	requests atomic.Int64
	bearers  atomic.Int64
}

// Listen opens a free port of the loopback interface.
func Listen() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the app: %w", err)
	}
	return &Server{listener: listener}, nil
}

// Addr is the host and port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends the server for new connections.
func (s *Server) Close() error { return s.listener.Close() }

// Counts returns how many requests there were so far, and how many of them had
// a valid bearer token.
func (s *Server) Counts() (requests, bearers int64) { return s.requests.Load(), s.bearers.Load() }

// Serve answers until Close.
func (s *Server) Serve() error {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("taking a connection: %w", err)
		}
		go func() {
			defer conn.Close()
			_ = s.converse(conn) // the proxy ends it, or gets no answer and fails
		}()
	}
}

func (s *Server) converse(conn net.Conn) error {
	r := bufio.NewReaderSize(conn, 16<<10)
	var answer []byte
	last := -1
	for {
		size, bearer, err := s.read(r)
		if err != nil {
			return err
		}
		if size != last {
			answer, last = response(size), size
		}
		s.requests.Add(1)
		if bearer {
			s.bearers.Add(1)
		}
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

var errBadRequest = errors.New("not a request that a proxy would relay")

// read reads one request.
func (s *Server) read(r *bufio.Reader) (size int, bearer bool, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, false, err
	}
	path, ok := bytes.CutPrefix(line, []byte("GET /"))
	if !ok {
		return 0, false, errBadRequest
	}
	path, _, _ = bytes.Cut(path, []byte(" "))
	size, err = strconv.Atoi(string(path))
	if err != nil || size < 0 || size > maxBody {
		return 0, false, errBadRequest
	}
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return size, bearer, nil
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch string(name) { // Go's spelling, which Caddy sends
		case "Authorization":
			token, ok := bytes.CutPrefix(value, []byte("Bearer "))
			bearer = ok && s.Valid(token)
		case "Content-Length", "Transfer-Encoding":
			return 0, false, errBadRequest
		}
	}
}

func response(size int) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nDate: %s\r\nContent-Length: %d\r\n\r\n",
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), size)
	return append([]byte(head), bytes.Repeat([]byte("x"), size)...)
}
