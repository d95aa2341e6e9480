// Package loopback reserves ports of the loopback interface for the servers that tests start.
package loopback

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// The ports lie below Linux's range for outgoing connections, so no outgoing connection can occupy one.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a TCP port of 127.0.0.1 without a listener. No other test, in this process or another, gets the same
// port until this test ends.
//
// Caddy listens with SO_REUSEPORT. Without the reservation, two servers could start on one port and share its connections.
func FreePort(t testing.TB) int {
	t.Helper()
	dir, err := reservations()
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		reservation, err := reserve(dir, port)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = reservation.Close() })
		return port
	}
	t.Fatal("no free loopback port found")
	return 0
}

// reservations returns the directory with one lock file for each port. All tests of a user share it.
func reservations() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	dir := filepath.Join(base, "caddy-oauth-session-e2e", "ports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("creating the directory of port reservations: %w", err)
	}
	return dir, nil
}

var errPortTaken = errors.New("port is taken")

// reserve locks the file of a port and checks that the port has no listener. Closing the result ends the reservation.
func reserve(dir string, port int) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(port)), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if lock(f) != nil {
		_ = f.Close()
		return nil, errPortTaken
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		_ = f.Close()
		return nil, errPortTaken
	}
	return f, l.Close()
}
