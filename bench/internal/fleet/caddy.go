package fleet

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Build makes the Caddy that all subjects run, with the module in it: plain Caddy
// is the same program with another configuration.
func Build(ctx context.Context, dir string) (string, error) {
	module, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	source := filepath.Join(module, "..", "e2e", "caddy")
	exe := filepath.Join(dir, "caddy")
	// As xcaddy builds it.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags=nobadger,nomysql,nopgx", "-o", exe, ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	return exe, nil
}

// moduleDir is the directory of the module that this program is run in.
func moduleDir(ctx context.Context) (string, error) {
	file, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module's directory: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(file))), nil
}

// caddyfile is the configuration of a subject. Connections to the app are all
// kept: Caddy keeps 32 unless told otherwise, and what is measured with more
// requests at a time would be the opening of new ones.
func (f *Fleet) caddyfile(s *Subject) string {
	login := ""
	if s.Name == PlainHeader {
		login = `request_header Authorization "Bearer ` + strings.Repeat("x", tokenSize) + `"`
	}
	if s.LogsIn() {
		login = fmt.Sprintf(`
		issuer %s
		client_id %s
		client_secret {env.CLIENT_SECRET}
		key {env.SESSION_KEY}
		%s`, f.issuer.URL, clientID, s.store)
		login = "oauth_session {" + login + "\n\t}"
	}
	return fmt.Sprintf(`{
	admin unix/%s
	skip_install_trust
	auto_https off
	log {
		level WARN
	}
	servers 127.0.0.1:%s {
		protocols h1 h2c
	}
}
(site) {
	bind 127.0.0.1
	%s
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host 1024
		}
	}
}
http://%s {
	import site
}
http://%s {
	import site
}
`, s.admin, port(s.HostH2C), login, f.app.Addr(), s.Host, s.HostH2C)
}

// runCaddy starts the subject's Caddy with its files in a directory.
func (f *Fleet) runCaddy(ctx context.Context, s *Subject, dir string) error {
	file := filepath.Join(dir, "Caddyfile")
	config := s.config
	if config == "" {
		config = f.caddyfile(s)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	notify := filepath.Join(dir, "notify.sock")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	defer socket.Close()
	cmd := exec.CommandContext(ctx, f.exe, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(),
		"NOTIFY_SOCKET="+notify, "CLIENT_SECRET="+clientSecret, "SESSION_KEY="+f.key.Encode(),
		"XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir, "GOMAXPROCS=1")
	s.process, err = start(ctx, dir, "caddy", cmd, func() bool { return ready(socket) })
	return err
}

// ready reads one notification, if there is any (sd_notify(3)).
func ready(socket *net.UnixConn) bool {
	var buf [4096]byte
	if err := socket.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		return false
	}
	n, err := socket.Read(buf[:])
	return err == nil && string(buf[:n]) == "READY=1"
}

func port(host string) string {
	_, p, _ := strings.Cut(host, ":")
	return p
}
