package caddymodule

import (
	"context"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// failingEventHandler is a handler of Caddy events with a bug.
type failingEventHandler struct{}

func (failingEventHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.fail", New: func() caddy.Module { return new(failingEventHandler) }}
}

func (*failingEventHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (failingEventHandler) Handle(context.Context, caddy.Event) error {
	panic("bug of an event handler")
}

// TestFailingEventHandlerDoesNotEndCaddy, and later events are emitted.
func TestFailingEventHandlerDoesNotEndCaddy(t *testing.T) {
	w := newWorld(t)
	w.load("{\nevents {\non oauth_session.login fail\non oauth_session.login record\non oauth_session.ended record\n}\n}\n" + site("", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	captured.wait(t, `"level":"error"`, "a handler of an event failed", "bug of an event handler")
	b.send("POST", "/oauth2/logout", map[string][]string{"Origin": {w.origin}})
	if e := <-recordedEvents; e.Name() != eventEnded {
		t.Errorf("got event %s, want %s", e.Name(), eventEnded)
	}
}
