package e2e

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
)

// A vigil is what a visitor has open at one instance.
type vigil struct {
	socket *websocket.Conn
	events *bufio.Reader
	poll   chan poll // gets the answer to a long poll
}

type poll struct {
	resp *client.Response
	err  error
}

// longPoll is answered by the app after longer than any test takes.
const longPoll = "/u/slow?d=9m"

// TestInstancesEnding keeps a WebSocket, an event stream and a long poll open at each instance: a logout at one of them ends
// all of its session, and nobody else's.
func TestInstancesEnding(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mine, others := f.welcome(t, "mine", 0), f.welcome(t, "other", 0)
	open := map[*visitor][]vigil{}
	for _, v := range []*visitor{mine, others} {
		for i := range f.nodes {
			open[v] = append(open[v], v.keepVigil(ctx, t, i))
		}
	}
	eventually(t, "all streams and polls", func() bool {
		polls := 0
		for _, r := range f.app.Requests() {
			if strings.Contains(r.Line, longPoll) {
				polls++
			}
		}
		return polls == 2*len(f.nodes) && f.app.Streams() == 4*len(f.nodes)
	})
	for _, v := range []*visitor{mine, others} {
		for i, vigil := range open[v] {
			vigil.demandOpen(t, i)
		}
	}
	resp, err := mine.at[1].Fetch(ctx, http.MethodPost, f.site+"/oauth2/logout", "")
	if err != nil || resp.Status != http.StatusOK {
		t.Fatalf("logging out: %v, error %v", resp, err)
	}
	for i, vigil := range open[mine] {
		vigil.awaitEnd(t, i)
	}
	if err := f.app.WaitStreams(ctx, 2*len(f.nodes)); err != nil {
		t.Error(err)
	}
	for i, vigil := range open[others] {
		vigil.demandOpen(t, i)
	}
	others.everywhere(t)
}

func (v *visitor) keepVigil(ctx context.Context, t *testing.T, instance int) vigil {
	t.Helper()
	kept := vigil{poll: make(chan poll, 1)}
	kept.socket = v.openSocket(ctx, t, instance)
	kept.events = v.openEvents(ctx, t, instance)
	go func() {
		resp, err := v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+longPoll, "")
		kept.poll <- poll{resp, err}
	}()
	return kept
}

// openSocket is what a page of the site does, at one instance.
func (v *visitor) openSocket(ctx context.Context, t *testing.T, instance int) *websocket.Conn {
	t.Helper()
	config, err := websocket.NewConfig(strings.Replace(v.fleet.site, "http", "ws", 1)+"/u/ws", v.fleet.site)
	if err != nil {
		t.Fatal(err)
	}
	config.Header = http.Header{
		"Cookie":         {cookieOf(t, v.round, v.fleet.site)},
		"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"websocket"}, "Sec-Fetch-Dest": {"websocket"},
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", v.fleet.nodes[instance].addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	socket, err := websocket.NewClient(config, conn)
	if err != nil {
		t.Fatalf("opening a WebSocket at instance %d: %v", instance, err)
	}
	return socket
}

func (v *visitor) openEvents(ctx context.Context, t *testing.T, instance int) *bufio.Reader {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.fleet.nodes[instance].addr+"/u/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = v.fleet.url.Host
	req.Header = http.Header{
		"Accept": {"text/event-stream"}, "Cookie": {cookieOf(t, v.round, v.fleet.site)},
		"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"},
	}
	resp, err := v.fleet.transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("opening an event stream at instance %d: got status %d", instance, resp.StatusCode)
	}
	return bufio.NewReader(resp.Body)
}

func (k vigil) demandOpen(t *testing.T, instance int) {
	t.Helper()
	if err := echoOnce(k.socket, "still there"); err != nil {
		t.Errorf("the WebSocket at instance %d: %v", instance, err)
	}
	if err := nextEvent(k.events); err != nil {
		t.Errorf("the event stream at instance %d: %v", instance, err)
	}
	select {
	case got := <-k.poll:
		t.Errorf("the long poll at instance %d was answered with %v, error %v", instance, got.resp, got.err)
	default:
	}
}

// awaitEnd waits until all three are over.
func (k vigil) awaitEnd(t *testing.T, instance int) {
	t.Helper()
	k.socket.SetDeadline(time.Now().Add(patience))
	var text string
	if err := websocket.Message.Receive(k.socket, &text); err == nil || isTimeout(err) {
		t.Errorf("after the logout the WebSocket at instance %d brings %q and error %v", instance, text, err)
	}
	var err error
	for err == nil {
		err = nextEvent(k.events) // what was on the way still comes
	}
	if isTimeout(err) {
		t.Errorf("after the logout the event stream at instance %d stays open", instance)
	}
	if got := <-k.poll; got.err != nil || got.resp.Status != http.StatusUnauthorized {
		t.Errorf("the long poll at instance %d was answered with %v, error %v; want 401", instance, got.resp, got.err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
