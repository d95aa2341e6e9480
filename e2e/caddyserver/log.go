package caddyserver

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// logTail is how much of the log a failed test shows.
const logTail = 64 << 10

// accidents are what must never stand in a log.
var accidents = []string{"panic", "DATA RACE", "fatal error:"}

// findAccident returns a line of the log that tells of one, or "". Logs are large: a regular expression takes seconds.
func findAccident(log string) string {
	for _, sign := range accidents {
		if i := strings.Index(log, sign); i >= 0 {
			line, _, _ := strings.Cut(log[strings.LastIndexByte(log[:i], '\n')+1:], "\n")
			return line
		}
	}
	return ""
}

// Log returns everything that Caddy has logged and printed since Start, over all restarts: tests look for secrets in it.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(s.logFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all strings.Builder
	all.Write(content)
	for _, p := range s.past {
		all.WriteString(p.Log(t))
	}
	if s.Process != nil {
		all.WriteString(s.Process.Log(t))
	}
	return all.String()
}

// Entries returns the log entries whose logger has the given name or one below it; all entries for an empty name.
func (s *Server) Entries(t testing.TB, logger string) []map[string]any {
	t.Helper()
	var entries []map[string]any
	for line := range strings.Lines(s.Log(t)) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue // printed before the log was set up
		}
		name, _ := entry["logger"].(string)
		if logger == "" || name == logger || strings.HasPrefix(name, logger+".") {
			entries = append(entries, entry)
		}
	}
	return entries
}

// check looks for accidents once all processes have ended.
func (s *Server) check(t testing.TB) {
	t.Helper()
	log := s.Log(t)
	if line := findAccident(log); line != "" {
		t.Errorf("Caddy had an accident: %s", line)
	}
	if t.Failed() {
		t.Logf("Caddy's log:\n%s", log[max(0, len(log)-logTail):])
	}
}
