package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is what a process holds in memory, in bytes.
type Memory struct {
	Anonymous int64 // its own
	File      int64 // pages of files, which the kernel can take back
}

// MemoryOf returns the resident memory of a process.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	return parseStatus(string(text))
}

// parseStatus reads /proc/PID/status (proc_pid_status(5)).
func parseStatus(text string) (Memory, error) {
	var m Memory
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "RssAnon":
			to = &m.Anonymous
		case "RssFile":
			to = &m.File
		default:
			continue
		}
		number, unit, _ := strings.Cut(strings.TrimSpace(value), " ")
		kilobytes, err := strconv.ParseInt(number, 10, 64)
		if err != nil || unit != "kB" {
			return Memory{}, fmt.Errorf("reading the memory of a process: %q", line)
		}
		*to = kilobytes << 10
		found++
	}
	if found != 2 {
		return Memory{}, fmt.Errorf("reading the memory of a process: the system does not tell it")
	}
	return m, nil
}
