package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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

// TestStreams keeps a WebSocket and an event stream open: a refresh leaves them alone, and the logout of their session ends
// them, and nobody else's.
func TestStreams(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	setLife(as, shortLife)
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, s, "", app))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mine, others := login(t, s, site+"/"), login(t, s, site+"/")
	token := bearer(fetch(t, mine, site+"/"))
	socket, events := openSocket(ctx, t, mine, site), openEvents(ctx, t, mine, site)
	otherSocket, otherEvents := openSocket(ctx, t, others, site), openEvents(ctx, t, others, site)
	both := func(socket *websocket.Conn, events *bufio.Reader, text string) {
		t.Helper()
		if err := echoOnce(socket, text); err != nil {
			t.Errorf("the WebSocket: %v", err)
		}
		if err := nextEvent(events); err != nil {
			t.Errorf("the event stream: %v", err)
		}
	}
	both(socket, events, "first")
	streamsAuthorized(t, app)

	token = renewed(t, mine, site+"/", token)
	renewed(t, mine, site+"/", token)
	both(socket, events, strings.Repeat("after two refreshes ", 1000))
	if n := app.Streams(); n != 4 {
		t.Errorf("after the refreshes %d streams are open, want 4", n)
	}

	if resp, err := mine.Fetch(ctx, http.MethodPost, site+"/oauth2/logout", ""); err != nil || resp.Status != http.StatusOK {
		t.Fatalf("logging out: %v, error %v", resp, err)
	}
	if err := app.WaitStreams(ctx, 2); err != nil {
		t.Fatalf("after the logout: %v", err)
	}
	socket.SetDeadline(time.Now().Add(patience))
	var text string
	if err := websocket.Message.Receive(socket, &text); err == nil {
		t.Errorf("after the logout the WebSocket brings %q", text)
	}
	var err error
	for err == nil {
		err = nextEvent(events) // what was on the way still comes
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("after the logout the event stream stays open")
	}
	both(otherSocket, otherEvents, "still there")
}

// TestStreamsEndWithTheIdleTime keeps a WebSocket and an event stream open beside requests: they end when the session was
// not used for its idle time, and not before.
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
	socket, events := openSocket(ctx, t, c, site), openEvents(ctx, t, c, site)
	var last time.Time
	for range 3 {
		time.Sleep(idle / 3)
		last = time.Now()
		fetch(t, c, site+"/")
	}
	if err := echoOnce(socket, "still there"); err != nil {
		t.Errorf("the WebSocket: %v", err)
	}
	if err := app.WaitStreams(ctx, 0); err != nil {
		t.Fatal(err)
	}
	// A minute was too much, and a busy machine needs some seconds.
	if unused := time.Since(last); unused < idle || unused > 5*idle {
		t.Errorf("the streams ended %v after the last use", unused)
	}
	var err error
	for err == nil {
		err = nextEvent(events) // what was on the way still comes
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("the event stream stays open")
	}
}

// streamsAuthorized demands that both kinds of streams came with a token and without the session's cookie.
func streamsAuthorized(t *testing.T, app *echo.Server) {
	t.Helper()
	streams := 0
	for _, r := range app.Requests() {
		if !strings.Contains(r.Line, "/u/ws") && !strings.Contains(r.Line, "/u/sse") {
			continue
		}
		streams++
		if r.Bearer() == "" || strings.Contains(strings.Join(r.Values("Cookie"), ";"), "oauth_") {
			t.Errorf("the app saw %s with the headers %v", r.Line, r.Headers)
		}
	}
	if streams != 4 {
		t.Errorf("the app saw %d streams, want 4", streams)
	}
}

// TestRedirect has the app redirect: that is the browser's to follow, and passes as it is.
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
			t.Errorf("the app's redirect arrives as %v with %v", resp, resp.Header)
		}
	}
}

func openSocket(ctx context.Context, t *testing.T, c *client.Client, site string) *websocket.Conn {
	t.Helper()
	config, err := websocket.NewConfig(strings.Replace(site, "http", "ws", 1)+"/u/ws", site)
	if err != nil {
		t.Fatal(err)
	}
	config.Header = http.Header{
		"Cookie":         {cookieOf(t, c, site)},
		"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"websocket"}, "Sec-Fetch-Dest": {"websocket"},
	}
	conn, err := config.DialContext(ctx)
	if err != nil {
		t.Fatalf("opening a WebSocket: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

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
		return errors.New("the echo is another text")
	}
	return nil
}

func openEvents(ctx context.Context, t *testing.T, c *client.Client, site string) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, site+"/u/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Accept": {"text/event-stream"}, "Cookie": {cookieOf(t, c, site)},
		"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("opening an event stream: got status %d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return bufio.NewReader(resp.Body)
}

// nextEvent reads up to the next event that the app has sent.
func nextEvent(events *bufio.Reader) error {
	for {
		line, err := events.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "data: tick") {
			return err
		}
	}
}
