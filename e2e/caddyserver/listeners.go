package caddyserver

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// listening is the state of a listening socket in /proc/net/tcp (TCP_LISTEN of the kernel).
const listening = "0A"

// awaitOneListener waits until the former configuration has closed its listeners. `caddy reload` returns earlier. Until
// then, two sockets listen on each address, and the kernel resets the connections that the closed one has not accepted.
func (s *Server) awaitOneListener(t testing.TB) {
	t.Helper()
	s.Process.Await(t, "end of the former listeners", func(context.Context) bool { return !listensTwice(t, s.Process.PID()) })
}

// listensTwice reports whether the process has two listening sockets with one address.
func listensTwice(t testing.TB, pid string) bool {
	t.Helper()
	sockets := sockets(t, pid)
	seen := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join("/proc", pid, "net", table))
		if err != nil {
			t.Fatalf("reading the listening sockets: %v", err)
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode
			columns := strings.Fields(line)
			if len(columns) < 10 || columns[3] != listening || !sockets["socket:["+columns[9]+"]"] {
				continue
			}
			address := columns[1]
			if seen[address] {
				return true
			}
			seen[address] = true
		}
	}
	return false
}

// sockets returns the open sockets of the process, as /proc/PID/fd names them.
func sockets(t testing.TB, pid string) map[string]bool {
	t.Helper()
	dir := filepath.Join("/proc", pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("reading the open sockets: %v", err)
	}
	open := map[string]bool{}
	for _, entry := range entries {
		// The process may close a descriptor while the test reads the directory.
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			open[target] = true
		}
	}
	return open
}
