// Package redisserver runs a real Redis for a test: one server on a free loopback port, which can be killed, frozen and
// started again on its data.
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
	// AppendOnly makes the server write each command to disk before it answers, so that it keeps what it has acknowledged
	// over Kill. Without it a server that was killed starts empty.
	AppendOnly bool
	// Args are further arguments of redis-server, such as "--maxmemory", "10mb".
	Args []string
}

// A Server is a Redis that lives as long as the test. It has no password and no TLS.
type Server struct {
	Addr    string        // host and port, which Restart keeps
	Process *proc.Process // nil after Kill and Stop

	args []string
}

// Start starts a server and waits until it serves. When the test ends it is stopped.
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

// URL is what a `store redis` names.
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
		return err == nil && reply == "PONG" // while it reads its data it answers with an error
	})
}

// Restart starts the server again after Kill or Stop, on the same port and with what lies on its disk.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if s.Process != nil {
		t.Fatal("Restart of a Redis that still runs")
	}
	s.run(t)
}

// Stop ends the server in an orderly way.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.Process.Stop(t)
	s.Process = nil
}

// Kill ends the server at once, as a power cut would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.Process.Kill(t)
	s.Process = nil
}

// Pause freezes the server: its connections stay, and nothing answers until Resume.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.Process.Pause(t)
}

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.Process.Resume(t)
}

// doTimeout bounds one command of Do.
const doTimeout = 120 * time.Second

// Do sends one command and returns the reply: a string, an int64, a []any of these, or nil. An error reply fails the test.
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

// Keys returns the names of all keys that match the pattern, in no order.
func (s *Server) Keys(t testing.TB, pattern string) []string {
	t.Helper()
	replies, _ := s.Do(t, "KEYS", pattern).([]any)
	names := make([]string, len(replies))
	for i, reply := range replies {
		names[i], _ = reply.(string)
	}
	return names
}
