package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// auditFileConfig returns the global options of docs/audit.md, with another file.
func auditFileConfig(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "\n    {\n")
	block, _, closed := strings.Cut(block, "\n    }\n")
	if !found || !closed || !strings.Contains(block, "/var/log/caddy/audit.log") {
		t.Fatal("docs/audit.md: got no block of global options with a file")
	}
	block = strings.Replace(block, "/var/log/caddy/audit.log", file, 1)
	// The tests' global options have the default log.
	return "{\n" + strings.Replace(block, "log default {", "log default {\noutput capture\nlevel DEBUG", 1) + "\n}\n"
}

// TestAuditFileHasEveryEvent: with the options of docs/audit.md the file has all lines of
// the trail, and the default log has none.
func TestAuditFileHasEveryEvent(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "audit.log")
	w.loadWith(strings.Replace(globals, "log {\noutput capture\nlevel DEBUG\n}\n", "", 1), auditFileConfig(t, file)+site("", ""))
	newBrowser(t, w.origin).login("/")
	if status, _ := askSessions(http.MethodDelete, "user=alice"); status != http.StatusOK {
		t.Fatalf("got status %d, want 200", status)
	}
	for _, event := range []string{"login", "session_ended", "session_revoked"} {
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			text, _ := os.ReadFile(file)
			if strings.Contains(string(text), `"event":"`+event+`"`) {
				break
			}
			if time.Now().After(end) {
				t.Errorf("got no line of %s in the file:\n%s", event, text)
				break
			}
		}
	}
	if found := captured.lines("oauth_session.audit"); found != nil {
		t.Errorf("got %s in the default log", found[0])
	}
}
