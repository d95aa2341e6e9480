package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Subject is a running proxy under measurement: Caddy, or a peer.
type Subject struct {
	Name string
	Host string // of the site that speaks HTTP/1.1, with its port on the loopback interface
	// HostH2C is that of the same site over HTTP/2. Peers have none.
	HostH2C string
	// Cookies are the Cookie headers of its sessions, or of the app's in front of the
	// app alone.
	Cookies []string
	// Started is how long it took until it served.
	Started time.Duration

	process *process
	admin   string // socket
	store   string // of Caddy, the store's line in the Caddyfile; "" without a login
	config  string // of Caddy; "": the usual one

	peer         *Peer // nil: it is Caddy
	database     int   // of Redis, of a peer
	refreshAfter time.Duration
}

// PID is the subject's process.
func (s *Subject) PID() int { return s.process.pid() }

// LogsIn reports whether the subject has sessions.
func (s *Subject) LogsIn() bool { return s.store != "" || s.IsPeer() }

// IsPeer reports whether the subject is another login proxy.
func (s *Subject) IsPeer() bool { return s.peer != nil }

// cookie is the name of the cookie that sessions are known by.
func (s *Subject) cookie() string {
	if s.IsPeer() {
		return s.peer.cookie
	}
	return cookieName
}

// run starts a subject.
func (f *Fleet) run(ctx context.Context, s *Subject) error {
	dir := filepath.Join(f.dir, strings.ReplaceAll(s.Name, " ", "-"))
	if s.IsPeer() {
		dir = fmt.Sprintf("%s-%d", dir, s.database) // there may be two
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	s.admin = filepath.Join(dir, "admin.sock")
	start := f.runCaddy
	if s.IsPeer() {
		start = f.runPeer
	}
	begun := time.Now()
	err := start(ctx, s, dir)
	s.Started = time.Since(begun)
	return err
}
