package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// A connectionSet holds a visitor's open connections to one instance.
type connectionSet struct {
	streams
	poll chan fetchResult // the answer to a long poll
}

type fetchResult struct {
	resp *client.Response
	err  error
}

// longPoll is the path of a request that the app answers after the end of the test.
const longPoll = "/u/slow?d=9m"

// TestInstancesEnding keeps a WebSocket, an event stream and a long poll of two sessions open at each instance. A logout at
// one instance ends all connections of its session, and none of the other.
func TestInstancesEnding(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetPlan{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mine, others := f.loginVisitor(t, "mine", 0), f.loginVisitor(t, "other", 0)
	open := f.openConnections(ctx, t, mine, others)
	for _, v := range []*visitor{mine, others} {
		for i, connections := range open[v] {
			connections.wantOpen(t, i)
		}
	}
	resp, err := mine.at[1].Fetch(ctx, http.MethodPost, f.site+"/oauth2/logout", "")
	if err != nil || resp.Status != http.StatusOK {
		t.Fatalf("logout: got %v and error %v, want 200", resp, err)
	}
	for i, connections := range open[mine] {
		connections.awaitClosed(t, i)
	}
	if err := f.app.WaitStreams(ctx, 2*len(f.nodes)); err != nil {
		t.Error(err)
	}
	for i, connections := range open[others] {
		connections.wantOpen(t, i)
	}
	others.askAll(t)
}

// openConnections opens a connection set of each visitor at each instance, and waits until the app has all of them.
func (f *fleet) openConnections(ctx context.Context, t *testing.T, visitors ...*visitor) map[*visitor][]connectionSet {
	t.Helper()
	open := map[*visitor][]connectionSet{}
	for _, v := range visitors {
		cookie := cookieOf(t, v.roundRobin, f.site)
		for i, n := range f.nodes {
			set := connectionSet{streams: openStreamsAt(ctx, t, n.addr, f.site, cookie), poll: make(chan fetchResult, 1)}
			go func() {
				resp, err := v.at[i].Fetch(ctx, http.MethodGet, f.site+longPoll, "")
				set.poll <- fetchResult{resp, err}
			}()
			open[v] = append(open[v], set)
		}
	}
	sets := len(visitors) * len(f.nodes)
	awaitLongPolls(t, f.app, sets)
	if err := f.app.WaitStreams(ctx, 2*sets); err != nil {
		t.Fatal(err)
	}
	return open
}

// awaitLongPolls waits until the app has got n long polls.
func awaitLongPolls(t *testing.T, app *echo.Server, n int) {
	t.Helper()
	eventually(t, "long poll at the app", func() bool {
		polls := 0
		for _, r := range app.Requests() {
			if strings.Contains(r.Line, longPoll) {
				polls++
			}
		}
		return polls == n
	})
}

// wantOpen fails the test unless both streams work and the long poll has no answer.
func (c connectionSet) wantOpen(t *testing.T, instance int) {
	t.Helper()
	c.streams.wantOpen(t, fmt.Sprintf("instance %d", instance))
	select {
	case got := <-c.poll:
		t.Errorf("long poll at instance %d: got %v and error %v, want no answer", instance, got.resp, got.err)
	default:
	}
}

// awaitClosed waits until both streams have ended and the answer to the long poll is 401.
func (c connectionSet) awaitClosed(t *testing.T, instance int) {
	t.Helper()
	c.streams.awaitClosed(t)
	if got := <-c.poll; got.err != nil || got.resp.Status != http.StatusUnauthorized {
		t.Errorf("long poll at instance %d: got %v and error %v, want 401", instance, got.resp, got.err)
	}
}
