package proc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
)

// Ports are taken from below Linux's range for outgoing connections, so that none of those can get in between.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a loopback TCP port that nobody listens on and that no other test gets until this one ends.
//
// The reservation matters because Caddy listens with SO_REUSEPORT: two servers on one port would both start and share
// the connections without a word.
func FreePort(t testing.TB) int {
	t.Helper()
	cache, err := build.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "ports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		reservation, err := reserve(dir, port)
		if err != nil {
			continue
		}
		t.Cleanup(func() { reservation.Close() })
		return port
	}
	t.Fatal("no free loopback port found")
	return 0
}

var errPortTaken = errors.New("port is taken")

func reserve(dir string, port int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		f.Close()
		return nil, errPortTaken
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		f.Close()
		return nil, errPortTaken
	}
	return f, ln.Close()
}
