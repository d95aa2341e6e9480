package caddyserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

const (
	commandLimit = 180 * time.Second // for one caddy command
	adminLimit   = 120 * time.Second // for one request to the admin endpoint
)

// A Config is a Caddyfile. Its sites should listen on addresses like http://localhost:PORT, with a port of proc.FreePort
// and `bind 127.0.0.1`.
type Config struct {
	Global string   // lines of the global options block, without admin and log
	Sites  string   // the text after that block
	Env    []string // additional environment, KEY=value
}

// A Server is one Caddy with its own data and configuration directories, admin socket and logs.
type Server struct {
	DataDir string        // Caddy's data directory, which survives Kill and Stop
	Process *proc.Process // nil after Kill and Stop

	dir   string
	env   []string
	ended []*proc.Process
}

// Start starts Caddy and waits until it serves. Caddy stops at the end of the test. The test fails if Caddy's output or
// log reports a panic or a data race.
func Start(t testing.TB, config Config) *Server {
	t.Helper()
	// The path of a socket has at most 107 bytes: t.TempDir contains the test's name and would be too long.
	dir, err := os.MkdirTemp("", "caddy-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	// The processes log there. This first call registers the directory's removal before the cleanup below, which therefore
	// still finds the logs.
	t.ArtifactDir()
	s := &Server{DataDir: filepath.Join(dir, "data", "caddy"), dir: dir}
	t.Cleanup(func() {
		s.checkLog(t)
		os.RemoveAll(dir)
	})
	s.env = append(os.Environ(),
		"XDG_DATA_HOME="+filepath.Join(dir, "data"),
		"XDG_CONFIG_HOME="+filepath.Join(dir, "config"),
		"HOME="+dir,
	)
	s.env = append(s.env, config.Env...)
	s.write(t, config)
	s.run(t)
	return s
}

// Restart starts Caddy again after Kill or Stop, with the last configuration and the same data.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if s.Process != nil {
		t.Fatal("Restart of a Caddy that still runs")
	}
	s.run(t)
}

func (s *Server) run(t testing.TB) {
	t.Helper()
	exe, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	notify := filepath.Join(s.dir, "notify.sock")
	os.Remove(notify)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd := exec.Command(exe, "run", "--config", s.caddyfile())
	cmd.Env = append(s.env, "NOTIFY_SOCKET="+notify)
	s.Process = proc.Start(t, "caddy", cmd)
	s.Process.Await(t, "readiness", func(context.Context) bool { return ready(t, socket) })
}

// ready reads one notification and reports whether it is READY=1. Caddy sends it by systemd's protocol (sd_notify) once
// the whole configuration is active. The admin endpoint answers earlier.
func ready(t testing.TB, socket *net.UnixConn) bool {
	t.Helper()
	buf := make([]byte, 4096)
	socket.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := socket.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(buf[:n]) == "READY=1"
}

// Stop ends Caddy with SIGTERM, as a service manager does.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.end(t, (*proc.Process).Stop)
}

// Kill ends Caddy at once with SIGKILL, like a power cut.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.end(t, (*proc.Process).Kill)
}

func (s *Server) end(t testing.TB, stop func(*proc.Process, testing.TB)) {
	t.Helper()
	if s.Process == nil {
		t.Fatal("Caddy does not run")
	}
	stop(s.Process, t)
	s.ended = append(s.ended, s.Process)
	s.Process = nil
}

// Reload replaces the configuration of the running Caddy with `caddy reload`. On error, Caddy has refused it and keeps
// the former one.
func (s *Server) Reload(t testing.TB, config Config) error {
	t.Helper()
	s.write(t, config)
	if _, err := s.Command(t, "reload", "--force", "--config", s.caddyfile(), "--address", s.adminAddress()); err != nil {
		return err
	}
	s.awaitOneListener(t)
	return nil
}

// Validate runs `caddy validate` on a configuration while Caddy runs, with the same data directory.
func (s *Server) Validate(t testing.TB, config Config) error {
	t.Helper()
	file := filepath.Join(s.dir, "Caddyfile.validate")
	s.writeTo(t, file, config)
	_, err := s.Command(t, "validate", "--config", file, "--adapter", "caddyfile")
	return err
}

// Command runs another caddy command with the server's environment and returns its standard output. An error contains
// its whole output.
func (s *Server) Command(t testing.TB, args ...string) (string, error) {
	t.Helper()
	exe, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = s.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running caddy %s: %w\n%s%s", strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String(), nil
}

// AdminCommand is Command for a command that uses the admin endpoint. The command finds it in the configuration.
func (s *Server) AdminCommand(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return s.Command(t, append(args, "--config", s.caddyfile())...)
}

// Admin sends a request to the admin endpoint, such as GET /metrics, and returns the status and the body.
func (s *Server) Admin(t testing.TB, method, path, body string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: adminLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", s.adminSocket())
		},
	}}
	// On a Unix socket, Caddy's admin endpoint accepts this host name.
	req, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("sending a request to Caddy's admin endpoint: %v", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer of Caddy's admin endpoint: %v", err)
	}
	return resp.StatusCode, string(answer)
}

func (s *Server) caddyfile() string    { return filepath.Join(s.dir, "Caddyfile") }
func (s *Server) adminSocket() string  { return filepath.Join(s.dir, "admin.sock") }
func (s *Server) adminAddress() string { return "unix/" + s.adminSocket() }
func (s *Server) logFile() string      { return filepath.Join(s.dir, "caddy.log") }

func (s *Server) write(t testing.TB, config Config) {
	t.Helper()
	s.writeTo(t, s.caddyfile(), config)
}

func (s *Server) writeTo(t testing.TB, file string, config Config) {
	t.Helper()
	text := fmt.Sprintf(`{
	admin %s
	skip_install_trust
	log {
		output file %s {
			roll_disabled
		}
		format json
		level DEBUG
	}
%s
}

%s
`, s.adminAddress(), s.logFile(), config.Global, config.Sites)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
