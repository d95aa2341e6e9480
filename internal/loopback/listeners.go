package loopback

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// listening is the state of a listening socket in /proc/net/tcp (TCP_LISTEN of the kernel).
const listening = "0A"

// ListensTwice reports whether a process has two listening sockets with one address. Caddy has that during a reload, and
// `caddy reload` returns before the former socket is closed: until then a new connection may reach the former
// configuration, or may be reset. It works on Linux only. pid is a number, or "self".
func ListensTwice(pid string) (bool, error) {
	open, err := openSockets(pid)
	if err != nil {
		return false, err
	}
	seen := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join("/proc", pid, "net", table))
		if err != nil {
			return false, fmt.Errorf("looking for listeners: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != listening || !open["socket:["+f[9]+"]"] {
				continue
			}
			if seen[f[1]] {
				return true, nil
			}
			seen[f[1]] = true
		}
	}
	return false, nil
}

// openSockets returns the sockets that the process has open.
func openSockets(pid string) (map[string]bool, error) {
	dir := filepath.Join("/proc", pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for listeners: %w", err)
	}
	open := map[string]bool{}
	for _, entry := range entries {
		// A descriptor may be closed while the folder is read.
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			open[target] = true
		}
	}
	return open, nil
}
