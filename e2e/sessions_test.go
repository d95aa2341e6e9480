package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
)

// shownSession is a line of `caddy oauth-session sessions --json`.
type shownSession struct {
	ID        string `json:"id"`
	User      string `json:"user"`
	UserAgent string `json:"user_agent"`
}

// sessions lists sessions with the command at one instance.
func (n *node) sessions(t *testing.T, args ...string) (list []shownSession) {
	t.Helper()
	out, err := n.AdminCommand(t, append([]string{"oauth-session", "sessions", "--json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var s shownSession
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("got %q: %v", line, err)
		}
		list = append(list, s)
	}
	return list
}

// loginFrom logs a visitor in with a browser of the given name.
func (f *fleet) loginFrom(t *testing.T, user, browser string, instance int) *visitor {
	t.Helper()
	v := f.visitor(user, instance+1)
	for _, c := range append([]*client.Client{v.roundRobin}, v.at...) {
		c.Header = http.Header{"User-Agent": {browser}}
	}
	if err := v.login(t.Context(), "/wanted"); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestLostLaptop finds the session of a lost laptop at one of three instances and revokes it there. Its WebSockets, event
// streams and long polls end at all instances, and its next request at each of them is at the login. The user's other
// browser, and other users, notice nothing.
func TestLostLaptop(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	laptop, phone, other := f.loginFrom(t, "alice", "Laptop", 0), f.loginFrom(t, "alice", "Phone", 1), f.loginFrom(t, "bob", "Laptop", 2)
	open := f.openConnections(ctx, t, laptop, phone, other)

	if all := f.nodes[1].sessions(t); len(all) != 3 {
		t.Errorf("got %+v, want three sessions", all)
	}
	var lost string
	found := f.nodes[1].sessions(t, "--user", "alice")
	for _, s := range found {
		if s.User == "alice" && s.UserAgent == "Laptop" {
			lost = s.ID
		}
	}
	if lost == "" || len(found) != 2 {
		t.Fatalf("got %+v, want the laptop and the phone", found)
	}
	if out, err := f.nodes[2].AdminCommand(t, "oauth-session", "revoke", "--id", lost); err != nil || out != "1 sessions ended\n" {
		t.Fatalf("revoke: got %q and error %v", out, err)
	}
	for i, connections := range open[laptop] {
		connections.awaitClosed(t, i)
	}
	laptop.wantLoggedOut(ctx, t)
	// The first navigation shows the reason and a link to the login. At all other instances, and from then on, navigations
	// are redirected there.
	told := 0
	for i, at := range laptop.at {
		page, err := at.Navigate(ctx, f.site+"/wanted")
		switch {
		case err != nil:
			t.Fatal(err)
		case page.Status == http.StatusUnauthorized && strings.Contains(string(page.Body), "session_revoked") && strings.Contains(string(page.Body), "/oauth2/login?"):
			told++
		case page.Location() == nil || !strings.HasPrefix(page.Location().String(), f.op.Issuer):
			t.Errorf("navigation at instance %d: got %v, want the login", i, page)
		}
	}
	if told != 1 {
		t.Errorf("got the reason %d times, want once", told)
	}
	for _, v := range []*visitor{phone, other} {
		for i, connections := range open[v] {
			connections.wantOpen(t, i)
		}
		v.askAll(t)
	}
	if list := f.nodes[0].sessions(t); len(list) != 2 {
		t.Errorf("after the revocation: got %+v, want two sessions", list)
	}
	if err := laptop.login(ctx, "/wanted"); err != nil {
		t.Errorf("login after the revocation: %v", err)
	}
	f.wantNoErrorLog(t)
}

// TestRevokeAll ends all sessions at all instances. Its exit status tells a script whether a session was found.
func TestRevokeAll(t *testing.T) {
	t.Parallel()
	key := newKey()
	f := startFleet(t, fleetPlan{keys: []string{key, key}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	alice, bob := f.loginVisitor(t, "alice", 0), f.loginVisitor(t, "bob", 1)
	alice.askAll(t)
	bob.askAll(t)
	revoke := func(args ...string) (string, error) {
		return f.nodes[0].AdminCommand(t, append([]string{"oauth-session", "revoke"}, args...)...)
	}
	for _, args := range [][]string{{}, {"--all"}, {"--user", "nobody"}, {"--user", "alice", "--all", "--yes"}, {"--id", strings.Repeat("ab", 32)}} {
		out, err := revoke(args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("revoke %q: got %q and error %v, want exit status 1", args, out, err)
		}
	}
	alice.askAll(t)
	if status, body := f.nodes[0].Admin(t, http.MethodDelete, "/oauth_session/sessions", ""); status != http.StatusBadRequest {
		t.Errorf("DELETE without a selection: got %d %s, want 400", status, body)
	}
	if out, err := revoke("--all", "--yes"); err != nil || out != "2 sessions ended\n" {
		t.Fatalf("revoke --all: got %q and error %v", out, err)
	}
	alice.wantLoggedOut(ctx, t)
	bob.wantLoggedOut(ctx, t)
	if out, err := f.nodes[1].AdminCommand(t, "oauth-session", "sessions", "--count"); err != nil || out != "0\n" {
		t.Errorf("count: got %q and error %v, want 0", out, err)
	}
}

// TestSessionLimitOverInstances logs one user in at several instances at once. As many sessions stay as the limit allows.
func TestSessionLimitOverInstances(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{options: "session_limit 2"})
	var all sync.WaitGroup
	visitors := make([]*visitor, 6)
	for i := range visitors {
		visitors[i] = f.visitor("alice", i)
		all.Go(func() {
			// The session may have ended when the browser arrives at the page.
			_, err := visitors[i].roundRobin.Login(t.Context(), f.site+"/oauth2/login?login_hint=alice&return_to=/wanted")
			if err != nil {
				t.Errorf("login %d: %v", i, err)
			}
		})
	}
	all.Wait()
	alive := 0
	for _, v := range visitors {
		resp, err := v.roundRobin.Fetch(t.Context(), http.MethodGet, f.site+"/api", "")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status != http.StatusUnauthorized {
			alive++
		}
	}
	if list := f.nodes[0].sessions(t, "--user", "alice"); alive != 2 || len(list) != 2 {
		t.Errorf("got %d sessions alive and %d listed, want 2", alive, len(list))
	}
}
