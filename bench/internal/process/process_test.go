package process

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

func TestProcessThatEndsEarlyShowsItsLog(t *testing.T) {
	err := check.Run(func() {
		Start(t.Context(), t.TempDir(), exec.Command("sh", "-c", "echo reason; exit 3"), func() bool { return false })
	})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "reason") {
		t.Errorf("got error %v, want the exit status and the log", err)
	}
}
