package proc

import (
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

// FreePort returns a loopback TCP port that nobody listens on and that no other test gets until this one ends.
func FreePort(t testing.TB) int {
	t.Helper()
	return loopback.FreePort(t)
}
