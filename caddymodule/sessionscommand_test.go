package caddymodule

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// runWith runs a command with arguments against an admin endpoint.
func runWith(cmd *cobra.Command, input, address string, args ...string) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(append(args, "--address", address))
	err = cmd.Execute()
	return stdout.String(), stderr.String(), err
}

// startAdmin serves the admin endpoint on a socket and returns its address.
func startAdmin(t *testing.T, serve http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestSessionsCommandListsSessions(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	address := startAdmin(t, serveAsAdmin)
	for range 3 {
		w.loginUser(w.origin, "alice")
	}
	w.loginUser(w.origin, "bob")

	out, errs, err := runWith(sessionsCommand(), "", address)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); err != nil || errs != "" || len(lines) != 5 || !strings.HasPrefix(lines[0], "SESSION") || strings.Count(out, "browser of alice") != 3 {
		t.Errorf("table: got error %v, %s and\n%s\nwant a heading and four sessions", err, errs, out)
	}
	out, _, err = runWith(sessionsCommand(), "", address, "--user", "bob", "--json")
	var s shownSession
	if err != nil || json.Unmarshal([]byte(out), &s) != nil || s.User != "bob" || len(s.ID) != 64 {
		t.Errorf("JSON: got error %v and %s, want one session of the user", err, out)
	}
	out, _, err = runWith(sessionsCommand(), "", address, "--count")
	if err != nil || out != "4\n" {
		t.Errorf("count: got error %v and %q, want 4", err, out)
	}
	seen := map[string]bool{}
	out, errs, err = runWith(sessionsCommand(), "", address, "--limit", "3", "--json")
	for {
		for line := range strings.Lines(out) {
			seen[line] = true
		}
		_, cursor, more := strings.Cut(strings.TrimSpace(errs), "--cursor ")
		if err != nil || !more {
			break
		}
		out, errs, err = runWith(sessionsCommand(), "", address, "--limit", "3", "--json", "--cursor", cursor)
	}
	if err != nil || len(seen) != 4 {
		t.Errorf("pages: got error %v and %d sessions, want 4", err, len(seen))
	}
	if out, _, err = runWith(sessionsCommand(), "", address, "--limit", "0", "--json"); err != nil || strings.Count(out, "\n") != 4 {
		t.Errorf("all: got error %v and %s, want 4 lines", err, out)
	}
	if _, _, err = runWith(sessionsCommand(), "", address, "--site", "elsewhere"); err == nil {
		t.Error("unknown site: got no error")
	}
	if _, _, err = runWith(sessionsCommand(), "", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("no Caddy: got error %v, want one with the address", err)
	}
}

func TestRevokeCommandEndsSessions(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	address := startAdmin(t, serveAsAdmin)
	first, second, bob := w.loginUser(w.origin, "alice"), w.loginUser(w.origin, "alice"), w.loginUser(w.origin, "bob")
	alive := func(want ...bool) {
		t.Helper()
		for i, b := range []*browser{first, second, bob} {
			if got := b.fetch("/").status == http.StatusOK; got != want[i] {
				t.Errorf("browser %d: got alive %v, want %v", i, got, want[i])
			}
		}
	}
	for _, tt := range []struct {
		input string
		args  []string
	}{
		{"", nil},
		{"", []string{"--site", "localhost"}},
		{"", []string{"--user", ""}},
		{"", []string{"--user", "carol"}},
		{"", []string{"--user", "alice", "--all", "--yes"}},
		{"", []string{"--id", "0123456789ab"}},
		{"", []string{"--id", strings.Repeat("0", 64)}},
		{"", []string{"--older-than", "soon"}},
		{"", []string{"--all"}},
		{"no\n", []string{"--all"}},
		{"y\n", []string{"--all"}},
		{"", []string{"--all", "--yes", "--site", ""}},
	} {
		if out, _, err := runWith(revokeCommand(), tt.input, address, tt.args...); err == nil {
			t.Errorf("revoke %q: got no error, and %s", tt.args, out)
		}
	}
	alive(true, true, true)
	if out, _, err := runWith(revokeCommand(), "", address, "--older-than", "30d"); err != nil || out != "0 sessions ended\n" {
		t.Errorf("older than all: got error %v and %q, want none ended", err, out)
	}
	out, _, err := runWith(revokeCommand(), "", address, "--user", "alice", "--json")
	if err != nil || out != `{"ended":2}`+"\n" {
		t.Errorf("user: got error %v and %q, want 2 ended", err, out)
	}
	alive(false, false, true)
	w.loginUser(w.origin, "alice")
	if _, errs, err := runWith(revokeCommand(), "yes\n", address, "--all"); err != nil || !strings.Contains(errs, "all sites") {
		t.Errorf("all: got error %v and the question %q", err, errs)
	}
	alive(false, false, false)
}

// TestTableIsNotForged: users choose their names, and clients their User-Agent.
func TestTableIsNotForged(t *testing.T) {
	address := startAdmin(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(sessionPage{Sessions: []shownSession{{
			ID: "1", User: "a\nforged\trow", Name: "\x1b[2J\u202egnp", UserAgent: "ü ok\r",
		}}})
	})
	out, _, err := runWith(sessionsCommand(), "", address)
	if err != nil || strings.Count(out, "\n") != 2 || strings.ContainsAny(out, "\x1b\u202e\r\t") || !strings.Contains(out, "ü ok") {
		t.Errorf("got error %v and %q, want one row without control characters", err, out)
	}
}
