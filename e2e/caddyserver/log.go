package caddyserver

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// logTail is the number of bytes of the log in the output of a failed test.
const logTail = 64 << 10

// crashMarkers appear in the log after a panic, a data race or a fatal error of the runtime.
var crashMarkers = []string{"panic", "DATA RACE", "fatal error:"}

// findCrash returns the first line with a crash marker, or "". Logs are large: a regular expression would take seconds.
func findCrash(log string) string {
	for _, marker := range crashMarkers {
		if i := strings.Index(log, marker); i >= 0 {
			line, _, _ := strings.Cut(log[strings.LastIndexByte(log[:i], '\n')+1:], "\n")
			return line
		}
	}
	return ""
}

// Log returns Caddy's log and output since Start, over all restarts. Tests search it for secrets.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(s.logFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all strings.Builder
	all.Write(content)
	for _, p := range s.ended {
		all.WriteString(p.Log(t))
	}
	if s.Process != nil {
		all.WriteString(s.Process.Log(t))
	}
	return all.String()
}

// Entries returns the log entries of the given logger and the loggers below it. An empty name selects all entries.
func (s *Server) Entries(t testing.TB, logger string) []map[string]any {
	t.Helper()
	var entries []map[string]any
	for line := range strings.Lines(s.Log(t)) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue // Caddy printed it before it set up the log
		}
		name, _ := entry["logger"].(string)
		if logger == "" || name == logger || strings.HasPrefix(name, logger+".") {
			entries = append(entries, entry)
		}
	}
	return entries
}

// checkLog fails the test if the log contains a crash marker. All processes must have ended.
func (s *Server) checkLog(t testing.TB) {
	t.Helper()
	log := s.Log(t)
	if line := findCrash(log); line != "" {
		t.Errorf("Caddy crashed or reported a data race: %s", line)
	}
	if t.Failed() {
		t.Logf("Caddy's log:\n%s", log[max(0, len(log)-logTail):])
	}
}
