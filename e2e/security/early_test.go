package security

import (
	"crypto/tls"
	"net/http"
	"slices"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// TestS83EarlyData: what came in TLS early data may be sent again by anybody on
// the network. It begins and ends no login, changes nothing and refreshes
// nothing. Caddy accepts early data over HTTP/3 unless told otherwise; a proxy in
// front may, too, and then says so.
func TestS83EarlyData(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	t.Run("a proxy's word", func(t *testing.T) {
		for _, request := range []string{"GET " + login, "GET " + callback + "?state=x&code=y", "POST " + logout, "POST " + refresh, "GET " + info, "POST /x", "DELETE /x", "GET /x"} {
			lines := append(slices.Clone(script), "Early-Data: 1")
			if request != "GET /x" { // with a session that may pass
				lines = append(lines, b.cookieLine())
			}
			reached := w.during(func() {
				if resp := w.raw(t, w.request(request, lines...)); resp.Status != http.StatusTooEarly || resp.Header["Set-Cookie"] != nil {
					t.Errorf("%s: status %d", request, resp.Status)
				}
			})
			if len(reached) != 0 {
				t.Errorf("%s: the app got %v", request, reached)
			}
		}
		reached := w.during(func() { w.rawGet(t, "/x", "Early-Data: 1", b.cookieLine()) })
		if len(reached) != 1 || !slices.Equal(reached[0].Values("Early-Data"), []string{"1"}) {
			t.Errorf("the app got %v", reached)
		}
		b.works(t)
	})
	t.Run("HTTP/3", func(t *testing.T) {
		start := b.start(t, login)
		cb := b.approve(t, start)
		w.tell(1)
		expired := w.loggedIn(t)
		w.calm()
		for path, early := range map[string]struct {
			cookies string
			passes  bool
		}{
			cb.RequestURI():    {b.logins()[0], false},
			login:              {"", false},
			"/x":               {"", false},
			"/static/x":        {"", true},
			"/x?session":       {sessionCookie + "=" + b.session(), true},
			"/x?session=stale": {sessionCookie + "=" + expired.session(), false},
		} {
			w.sendEarly(t, path, early.cookies, early.passes)
		}
		// Now it may be refreshed, and the code redeemed.
		expired.works(t)
		if resp := b.nav(t, cb.String()); resp.Status != http.StatusSeeOther {
			t.Errorf("after the handshake the callback answers %v", resp)
		}
	})
}

// sendEarly sends a request in early data until that was early enough: the
// handshake may be complete when the server gets to it.
func (w *world) sendEarly(t *testing.T, path, cookies string, passes bool) {
	t.Helper()
	tickets := tls.NewLRUClientSessionCache(1)
	eventually(t, "early data for "+path, func() bool {
		// A connection without early data, for a ticket.
		w.overHTTP3(t, tickets, http.MethodGet, "/static/ticket", "")
		calls, status := w.tokenCalls(), 0
		reached := w.during(func() { status = w.overHTTP3(t, tickets, http3.MethodGet0RTT, path, cookies) })
		if passes {
			// Caddy tells the app.
			if len(reached) != 1 || status != http.StatusOK {
				t.Errorf("%s: status %d, the app got %v", path, status, reached)
			}
			return len(reached) == 0 || slices.Equal(reached[0].Values("Early-Data"), []string{"1"})
		}
		if status == http.StatusTooEarly && (len(reached) != 0 || w.tokenCalls() != calls) {
			t.Errorf("%s: the app got %v, the authorization server %d requests", path, reached, w.tokenCalls()-calls)
		}
		return status == http.StatusTooEarly
	})
}

// overHTTP3 sends a request over a connection of its own.
func (w *world) overHTTP3(t *testing.T, tickets tls.ClientSessionCache, method, path, cookies string) int {
	t.Helper()
	tr := w.transport3(t, tickets)
	defer tr.Close()
	ctx, cancel := quickly(t)
	defer cancel()
	req := w.streamRequest(ctx, t, method, path, "", nil)
	req.Header.Del("Origin")
	for i, value := range []string{"navigate", "document", "none"} {
		req.Header.Set([]string{"Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Fetch-Site"}[i], value)
	}
	if cookies != "" {
		req.Header.Set("Cookie", cookies)
	}
	resp, err := (&watched{w, tr}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s over HTTP/3: %v", path, err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
