package proc

import (
	"os/exec"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/testrecorder"
)

func TestFreePortReservesEachPortOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		port := FreePort(t)
		if seen[port] {
			t.Fatalf("got port %d twice", port)
		}
		seen[port] = true
	}
}

func TestStopEndsResumedProcess(t *testing.T) {
	t.Parallel()
	p := Start(t, "shell", exec.Command("sh", "-c", `echo "ready with this"; exec sleep 600`))
	if got := p.AwaitLine(t, "ready "); got != "with this" {
		t.Errorf("AwaitLine: got %q, want with this", got)
	}
	p.Pause(t)
	p.Resume(t)
	p.Stop(t)
	select {
	case <-p.done:
	default:
		t.Error("after Stop: the program still runs")
	}
}

func TestKillEndsProcessThatIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	p := Start(t, "deaf", exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 1; done`))
	p.AwaitLine(t, "ready")
	p.Kill(t)
	if p.cmd.ProcessState.Success() {
		t.Errorf("after Kill: got %v, want a failure", p.cmd.ProcessState)
	}
}

func TestStopResumesPausedProcess(t *testing.T) {
	t.Parallel()
	// The trap makes the program handle SIGTERM itself. Without it, Linux would end even a paused program at once.
	p := Start(t, "paused", exec.Command("sh", "-c", `trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done`))
	p.AwaitLine(t, "ready")
	p.Pause(t)
	p.Stop(t)
	if !p.cmd.ProcessState.Success() {
		t.Errorf("got %v, want exit status 0", p.cmd.ProcessState)
	}
}

func TestUnexpectedEndFailsTheTest(t *testing.T) {
	t.Parallel()
	p := Start(t, "short", exec.Command("sh", "-c", "exit 1"))
	<-p.done
	recorder := &testrecorder.Recorder{TB: t}
	p.cleanUp(recorder)
	if recorder.Errors != 1 {
		t.Errorf("got %d errors, want 1", recorder.Errors)
	}
	p.stopping.Store(true)
}
