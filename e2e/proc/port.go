package proc

import (
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

// FreePort reserves a loopback TCP port without a listener until the test ends.
func FreePort(t testing.TB) int {
	t.Helper()
	return loopback.FreePort(t)
}
