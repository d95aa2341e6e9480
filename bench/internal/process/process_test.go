package process

import (
	"os/exec"
	"strings"
	"testing"
)

func TestProcessThatEndsEarlyShowsItsLog(t *testing.T) {
	_, err := Start(t.Context(), t.TempDir(), exec.Command("sh", "-c", "echo reason; exit 3"), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "reason") {
		t.Errorf("got error %v, want the exit status and the log", err)
	}
}
