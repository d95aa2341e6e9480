package security

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// hasSession asks the session endpoint, which does not count as use of the session.
func (b *browser) hasSession(t testing.TB) bool {
	t.Helper()
	resp := b.xhr(t, http.MethodGet, sessionInfo)
	var answer struct{ Authenticated bool }
	if err := json.Unmarshal(resp.Body, &answer); resp.Status != http.StatusOK || err != nil {
		t.Fatalf("got %v, %v", resp, err)
	}
	return answer.Authenticated
}

// TestS56SessionEndsByTheServersClock: sessions end at the idle and the absolute limit,
// although the browser keeps the cookie and the session is used or refreshed.
func TestS56SessionEndsByTheServersClock(t *testing.T) {
	const idle, longest = 5 * time.Second, 10 * time.Second
	w := newWorld(t, plan{mostlyWaits: true, redis: true, options: "idle_timeout " + idle.String() + "\nmax_lifetime " + longest.String()})
	// The replay is the cookie of a browser that ignores Max-Age.
	over := func(t *testing.T, cookie string) {
		t.Helper()
		for i := range w.instances {
			w.checkRefused(t, w.browserAt(i).send(t, http.MethodGet, "/replay", "", append([]string{"Cookie: " + sessionCookie + "=" + cookie}, scriptHeaders...)...))
		}
	}
	t.Run("idle", func(t *testing.T) {
		begun := time.Now()
		b := w.browser()
		b.login(t, "/")
		cookie := b.session()
		eventually(t, "end of an idle session", func() bool { return !b.at(1).hasSession(t) })
		if lived := time.Since(begun); lived < idle {
			t.Errorf("the session ended after %v, want at least %v", lived, idle)
		}
		over(t, cookie)
	})
	t.Run("absolute", func(t *testing.T) {
		w.idp.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = time.Second })
		refreshes := w.refreshes()
		b := w.browser()
		begun := time.Now()
		b.login(t, "/")
		cookie, used := b.session(), 0
		eventually(t, "end of a busy session", func() bool {
			resp := b.at(used%2).xhr(t, http.MethodGet, "/busy")
			switch resp.Status {
			case http.StatusOK:
				used++
			case http.StatusUnauthorized:
			default:
				t.Fatalf("busy session: got %v", resp)
			}
			return resp.Status == http.StatusUnauthorized
		})
		if lived := time.Since(begun); lived < longest || used < 3 || w.refreshes() == refreshes {
			t.Errorf("the session lived for %v, with %d uses and %d refreshes", lived, used, w.refreshes()-refreshes)
		}
		over(t, cookie)
	})
}
