package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestStreams keeps WebSockets and event streams of two sessions open. They survive refreshes. The logout of a session ends
// its own streams only.
func TestStreams(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	setAccessTokenLifetime(as, shortLife)
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, s, "", app))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mine, others := login(t, s, site+"/"), login(t, s, site+"/")
	token := bearer(fetch(t, mine, site+"/"))
	own, other := openStreamsAt(ctx, t, hostOf(site), site, cookieOf(t, mine, site)), openStreamsAt(ctx, t, hostOf(site), site, cookieOf(t, others, site))
	own.wantOpen(t, "first")
	wantAuthorizedStreams(t, app)

	token = awaitNewBearer(t, mine, site+"/", token)
	awaitNewBearer(t, mine, site+"/", token)
	own.wantOpen(t, strings.Repeat("after two refreshes ", 1000))
	if n := app.Streams(); n != 4 {
		t.Errorf("after the refreshes: got %d open streams, want 4", n)
	}

	if resp, err := mine.Fetch(ctx, http.MethodPost, site+"/oauth2/logout", ""); err != nil || resp.Status != http.StatusOK {
		t.Fatalf("logout: got %v and error %v, want 200", resp, err)
	}
	if err := app.WaitStreams(ctx, 2); err != nil {
		t.Fatalf("after the logout: %v", err)
	}
	own.awaitClosed(t)
	other.wantOpen(t, "after the logout")
}

// TestStreamsEndWithTheIdleTime keeps a WebSocket and an event stream open while the session is in use. They end once the
// session has been idle for its idle_timeout, and not before.
func TestStreamsEndWithTheIdleTime(t *testing.T) {
	t.Parallel()
	const idle = 6 * time.Second
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, s, "idle_timeout "+idle.String(), app))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := login(t, s, site+"/")
	opened := openStreamsAt(ctx, t, hostOf(site), site, cookieOf(t, c, site))
	var last time.Time
	for range 3 {
		time.Sleep(idle / 3)
		last = time.Now()
		fetch(t, c, site+"/")
	}
	if err := echoOnce(opened.socket, "after the last request"); err != nil {
		t.Errorf("WebSocket: got error %v, want an echo", err)
	}
	if err := app.WaitStreams(ctx, 0); err != nil {
		t.Fatal(err)
	}
	// The upper bound leaves some seconds for a busy machine.
	if unused := time.Since(last); unused < idle || unused > 5*idle {
		t.Errorf("the streams ended %v after the last request, want %v to %v", unused, idle, 5*idle)
	}
	opened.awaitClosed(t)
}

// wantAuthorizedStreams fails the test unless the app got four streams, with a token and without the session cookie.
func wantAuthorizedStreams(t *testing.T, app *echo.Server) {
	t.Helper()
	streams := 0
	for _, r := range app.Requests() {
		if !strings.Contains(r.Line, "/u/ws") && !strings.Contains(r.Line, "/u/sse") {
			continue
		}
		streams++
		if r.Bearer() == "" || strings.Contains(strings.Join(r.Values("Cookie"), ";"), "oauth_") {
			t.Errorf("the app got %s with the headers %v, want a token and no session cookie", r.Line, r.Headers)
		}
	}
	if streams != 4 {
		t.Errorf("the app got %d streams, want 4", streams)
	}
}

// TestRedirect shows that the proxy does not follow or change a redirect of the app.
func TestRedirect(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/from" {
			fmt.Fprintf(w, `{"headers": [["Authorization", %q]]}`, r.Header.Get("Authorization"))
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "app", Value: "own"})
		w.Header().Set("Location", "there?q=1#part")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	t.Cleanup(app.Close)
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	directives := protect(s, "") + "reverse_proxy " + app.Listener.Addr().String()
	caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, directives)})
	c := login(t, s, site+"/")
	for _, resp := range []*client.Response{navigate(t, c, site+"/from"), fetch(t, c, site+"/from")} {
		got := []string{resp.Header.Get("Location"), resp.Header.Get("Set-Cookie")}
		if resp.Status != http.StatusTemporaryRedirect || !slices.Equal(got, []string{"there?q=1#part", "app=own"}) {
			t.Errorf("got %v with %v, want the app's redirect and cookie", resp, resp.Header)
		}
	}
}

// hostOf returns the host and port of a site.
func hostOf(site string) string { return strings.TrimPrefix(site, "http://") }

// streams are a WebSocket and an event stream of a session.
type streams struct {
	addr   string // of the server
	socket *websocket.Conn
	events *bufio.Reader
}

// openStreamsAt opens streams of the site at the server with the address.
func openStreamsAt(ctx context.Context, t *testing.T, addr, site, cookie string) streams {
	t.Helper()
	return streams{addr: addr, socket: openSocket(ctx, t, addr, site, cookie), events: openEvents(ctx, t, addr, site, cookie)}
}

func openSocket(ctx context.Context, t *testing.T, addr, site, cookie string) *websocket.Conn {
	t.Helper()
	config, err := websocket.NewConfig(strings.Replace(site, "http", "ws", 1)+"/u/ws", site)
	if err != nil {
		t.Fatal(err)
	}
	config.Header = http.Header{
		"Cookie": {cookie}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"websocket"}, "Sec-Fetch-Dest": {"websocket"},
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	socket, err := websocket.NewClient(config, conn)
	if err != nil {
		t.Fatalf("opening a WebSocket at %s: %v", addr, err)
	}
	return socket
}

func openEvents(ctx context.Context, t *testing.T, addr, site, cookie string) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/u/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = hostOf(site)
	req.Header = http.Header{
		"Accept": {"text/event-stream"}, "Cookie": {cookie},
		"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("opening an event stream at %s: got status %d and content type %s", addr, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return bufio.NewReader(resp.Body)
}

// wantOpen fails the test unless the WebSocket returns the text and the event stream brings an event.
func (s streams) wantOpen(t *testing.T, text string) {
	t.Helper()
	if err := echoOnce(s.socket, text); err != nil {
		t.Errorf("WebSocket at %s: got error %v, want an echo", s.addr, err)
	}
	if err := nextEvent(s.events); err != nil {
		t.Errorf("event stream at %s: got error %v, want an event", s.addr, err)
	}
}

// awaitClosed waits until both streams have ended.
func (s streams) awaitClosed(t *testing.T) {
	t.Helper()
	s.socket.SetDeadline(time.Now().Add(patience))
	var text string
	if err := websocket.Message.Receive(s.socket, &text); err == nil || isTimeout(err) {
		t.Errorf("WebSocket at %s: got %q and error %v, want its end", s.addr, text, err)
	}
	var err error
	for err == nil {
		err = nextEvent(s.events) // events in transit still arrive
	}
	if isTimeout(err) {
		t.Errorf("event stream at %s: got error %v, want its end", s.addr, err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// echoOnce sends a text over a WebSocket and reads it back.
func echoOnce(conn *websocket.Conn, text string) error {
	conn.SetDeadline(time.Now().Add(patience))
	if err := websocket.Message.Send(conn, text); err != nil {
		return err
	}
	var back string
	if err := websocket.Message.Receive(conn, &back); err != nil {
		return err
	}
	if back != text {
		return fmt.Errorf("got echo %.100q, want %.100q", back, text)
	}
	return nil
}

// nextEvent reads the app's next event.
func nextEvent(events *bufio.Reader) error {
	for {
		line, err := events.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "data: tick") {
			return err
		}
	}
}
