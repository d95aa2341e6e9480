// Package redisserver runs a real Redis for a test, on a free loopback port. Tests can kill it, pause it and restart it
// on its data.
package redisserver

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// Options of a server.
type Options struct {
	// AppendOnly writes each command to disk before its answer, so that acknowledged writes survive Kill. Without it, the
	// server is empty after Restart.
	AppendOnly bool
	// Args are additional arguments of redis-server, such as "--maxmemory", "10mb".
	Args []string
}

// A Server is a Redis without password and TLS.
type Server struct {
	Addr    string        // host and port, which Restart keeps
	Process *proc.Process // nil after Kill and Stop

	args []string
}

// Start starts a server and waits until it serves. The server stops at the end of the test.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	port := strconv.Itoa(proc.FreePort(t))
	persistence := []string{"--appendonly", "no"}
	if opts.AppendOnly {
		persistence = []string{"--appendonly", "yes", "--appendfsync", "always"}
	}
	s := &Server{Addr: "127.0.0.1:" + port}
	s.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", ""}, persistence...)
	s.args = append(s.args, opts.Args...)
	s.run(t)
	return s
}

// URL returns the server's URL, for `store redis`.
func (s *Server) URL() string { return "redis://" + s.Addr }

func (s *Server) run(t testing.TB) {
	t.Helper()
	exe, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v; `go run ./cmd/setup` installs it", err)
	}
	s.Process = proc.Start(t, "redis", exec.Command(exe, s.args...))
	s.Process.Await(t, "readiness", func(ctx context.Context) bool {
		reply, err := do(ctx, s.Addr, "PING")
		return err == nil && reply == "PONG" // the reply is an error while Redis loads its data
	})
}

// Restart starts the server again after Kill or Stop, on the same port and with the data on its disk.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if s.Process != nil {
		t.Fatal("Restart of a Redis that still runs")
	}
	s.run(t)
}

// Stop ends the server with SIGTERM.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.Process.Stop(t)
	s.Process = nil
}

// Kill ends the server at once with SIGKILL, like a power cut.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.Process.Kill(t)
	s.Process = nil
}

// Pause suspends the server until Resume. Its connections stay open and get no answer.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.Process.Pause(t)
}

// Resume continues a paused server.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.Process.Resume(t)
}

// doTimeout bounds each call of Do.
const doTimeout = 120 * time.Second

// Do sends one command and returns the reply: a string, an int64, nil, or a []any of these. An error reply fails the test.
func (s *Server) Do(t testing.TB, args ...string) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), doTimeout)
	defer cancel()
	reply, err := do(ctx, s.Addr, args...)
	if err != nil {
		t.Fatal(fmt.Errorf("sending %s to Redis: %w", args[0], err))
	}
	return reply
}

// Keys returns the names of the keys that match the pattern, unordered.
func (s *Server) Keys(t testing.TB, pattern string) []string {
	t.Helper()
	replies, _ := s.Do(t, "KEYS", pattern).([]any)
	names := make([]string, len(replies))
	for i, reply := range replies {
		names[i], _ = reply.(string)
	}
	return names
}
