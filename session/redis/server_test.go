package redis

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

// patience is the timeout of events that come in a correct program, also on a busy machine.
const patience = 2 * time.Minute

// server is a redis-server of one test.
type server struct {
	tb   testing.TB
	dir  string
	port int
	args []string
	log  *logBuffer

	cmd    *exec.Cmd
	exited chan struct{}
}

// logBuffer collects the output of a server, for the log of a failed test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startServer starts a server on a free port of the loopback interface. Its files are in
// a directory of the test. Further arguments are settings, such as "--maxmemory", "1mb".
func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	s := newServer(tb, args...)
	s.start()
	s.awaitAnswer()
	return s
}

// newServer returns a server that is not started.
func newServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("no redis-server in PATH: install it with `make setup`")
	}
	s := &server{tb: tb, dir: shortDir(tb), port: loopback.FreePort(tb), log: &logBuffer{}}
	s.args = append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port), "--dir", s.dir,
		"--unixsocket", s.socket(), "--save", "", "--repl-diskless-sync-delay", "0",
	}, args...)
	tb.Cleanup(func() {
		s.kill()
		if tb.Failed() {
			tb.Logf("server on port %d:\n%s", s.port, s.log)
		}
	})
	return s
}

// shortDir returns a temporary directory with a short path, as the length of a socket's
// path is limited.
func shortDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (s *server) start() {
	s.tb.Helper()
	s.run("redis-server", s.args...)
}

func (s *server) run(name string, args ...string) {
	s.tb.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
}

// kill ends the server like a crash, and waits for its end.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

func (s *server) addr() string   { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }
func (s *server) url() string    { return "redis://" + s.addr() }
func (s *server) socket() string { return filepath.Join(s.dir, "redis.sock") }

// do runs a command with redis-cli and returns its output.
func (s *server) do(args ...string) string {
	s.tb.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.tb.Fatalf("redis-cli %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try is do for commands that may fail.
func (s *server) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "redis-cli", append([]string{"-e", "-s", s.socket()}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *server) awaitAnswer() {
	s.tb.Helper()
	s.await("an answer", func() bool {
		out, err := s.try("PING")
		return err == nil && out == "PONG"
	})
}

func (s *server) await(what string, ok func() bool) {
	s.tb.Helper()
	await(s.tb, fmt.Sprintf("%s of the server on port %d", what, s.port), ok)
}

// await calls ok until it returns true, and fails the test after patience.
func await(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("timeout waiting for %s", what)
		}
	}
}
