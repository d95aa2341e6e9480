package security

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
)

// TestS83EarlyDataChangesNothing: an attacker on the network can replay TLS early data. A
// request in early data starts or ends no login, changes nothing and refreshes nothing.
// Caddy accepts early data over HTTP/3 by default. A proxy in front may accept it too, and
// then sends Early-Data.
func TestS83EarlyDataChangesNothing(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	t.Run("header of a proxy", func(t *testing.T) {
		for _, request := range []string{"GET " + login, "GET " + callback + "?state=x&code=y", "POST " + logout, "POST " + refresh, "GET " + sessionInfo, "POST /x", "DELETE /x", "GET /x"} {
			lines := append(slices.Clone(scriptHeaders), "Early-Data: 1")
			if request != "GET /x" { // GET /x with a session may pass
				lines = append(lines, b.cookieLine())
			}
			reached := w.appRequests(func() {
				if resp := w.raw(t, w.request(request, lines...)); resp.Status != http.StatusTooEarly || resp.Header["Set-Cookie"] != nil {
					t.Errorf("%s: got status %d, want 425 without cookies", request, resp.Status)
				}
			})
			if len(reached) != 0 {
				t.Errorf("%s: the app got %v, want no request", request, reached)
			}
		}
		reached := w.appRequests(func() { w.rawGet(t, "/x", "Early-Data: 1", b.cookieLine()) })
		if len(reached) != 1 || !slices.Equal(reached[0].Values("Early-Data"), []string{"1"}) {
			t.Errorf("the app got %v, want one request with Early-Data", reached)
		}
		b.checkSession(t)
	})
	t.Run("HTTP/3", func(t *testing.T) {
		start := b.start(t, login)
		cb := b.approve(t, start)
		var expired *browser
		for path, early := range map[string]struct {
			cookies func() string
			passes  bool
		}{
			cb.RequestURI(): {func() string { return b.logins()[0] }, false},
			login:           {func() string { return "" }, false},
			"/x":            {func() string { return "" }, false},
			"/static/x":     {func() string { return "" }, true},
			"/x?session":    {func() string { return sessionCookie + "=" + b.session() }, true},
			// A request that arrives after the handshake causes a refresh: each attempt
			// needs a new session.
			"/x?session=stale": {func() string {
				w.announceLifetime(1)
				expired = w.loggedIn(t)
				w.resetServers()
				return sessionCookie + "=" + expired.session()
			}, false},
		} {
			w.sendEarly(t, path, early.cookies, early.passes)
		}
		// After the handshake the token is refreshed and the code is redeemed.
		expired.checkSession(t)
		if resp := b.nav(t, cb.String()); resp.Status != http.StatusSeeOther {
			t.Errorf("callback after the handshake: got %v, want 303", resp)
		}
	})
}

// buildEarlyClient builds the client without the race detector.
var buildEarlyClient = sync.OnceValues(func() (string, error) {
	program := filepath.Join(wholeSuite.dir, "earlyclient")
	out, err := exec.Command("go", "build", "-o", program, "./earlyclient").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building earlyclient: %w\n%s", err, out)
	}
	return program, err
})

// sendEarly repeats a request until the server handles it as early data. The handshake may
// complete before the server reads the request.
func (w *world) sendEarly(t *testing.T, path string, cookies func() string, passes bool) {
	t.Helper()
	program, err := buildEarlyClient()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "early data for "+path, func() bool {
		send := w.prepareEarly(t, program, path, cookies())
		calls, status := w.tokenRequests(), 0
		reached := w.appRequests(func() { status = send() })
		if passes {
			// Caddy adds Early-Data for the app.
			if len(reached) != 1 || status != http.StatusOK {
				t.Errorf("%s: got status %d, and the app got %v", path, status, reached)
			}
			return len(reached) == 0 || slices.Equal(reached[0].Values("Early-Data"), []string{"1"})
		}
		if status == http.StatusTooEarly && (len(reached) != 0 || w.tokenRequests() != calls) {
			t.Errorf("%s: the app got %v, and the authorization server %d token requests; want none", path, reached, w.tokenRequests()-calls)
		}
		return status == http.StatusTooEarly
	})
}

// prepareEarly starts the client and waits until it has a session ticket. The returned
// function sends the request and returns the status of the answer.
func (w *world) prepareEarly(t *testing.T, program, path, cookies string) (send func() int) {
	t.Helper()
	ctx, cancel := boundedContext(t)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, w.instances[0].addr, w.site, path, cookies)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ticket" {
		t.Fatalf("got %q, %v, want a session ticket", lines.Text(), cmd.Wait())
	}
	return func() int {
		t.Helper()
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		lines.Scan()
		status, err := strconv.Atoi(lines.Text())
		if err := errors.Join(err, cmd.Wait()); err != nil {
			t.Fatalf("%s over HTTP/3: %v", path, err)
		}
		return status
	}
}
