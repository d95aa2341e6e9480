package caddyserver

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// logTail is how much of the log a failed test shows.
const logTail = 64 << 10

// accident is what must never stand in a log.
var accident = regexp.MustCompile(`(?m)^.*(panic|DATA RACE|fatal error:).*$`)

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
	if line := accident.FindString(log); line != "" {
		t.Errorf("Caddy had an accident: %s", line)
	}
	if t.Failed() {
		t.Logf("Caddy's log:\n%s", log[max(0, len(log)-logTail):])
	}
}
