package caddyserver

import (
	"context"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

// awaitOneListener waits until the former configuration has closed its listeners.
func (s *Server) awaitOneListener(t testing.TB) {
	t.Helper()
	s.Process.Await(t, "end of the former listeners", func(context.Context) bool {
		twice, err := loopback.ListensTwice(s.Process.PID())
		if err != nil {
			t.Fatal(err)
		}
		return !twice
	})
}
