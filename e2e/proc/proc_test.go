package proc

import (
	"os/exec"
	"testing"
)

func TestFreePortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 100 {
		port := FreePort(t)
		if seen[port] {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
	}
}

func TestProcessLifecycle(t *testing.T) {
	t.Parallel()
	p := Start(t, "shell", exec.Command("sh", "-c", `echo "ready with this"; exec sleep 600`))
	if got := p.AwaitLine(t, "ready "); got != "with this" {
		t.Errorf("got %q after the prefix", got)
	}
	p.Pause(t)
	p.Resume(t)
	p.Stop(t)
	select {
	case <-p.done:
	default:
		t.Error("still running after Stop")
	}
}

func TestKillEndsStubbornProcess(t *testing.T) {
	t.Parallel()
	p := Start(t, "stubborn", exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 1; done`))
	p.AwaitLine(t, "ready")
	p.Kill(t)
	if p.cmd.ProcessState.Success() {
		t.Error("a killed program must not look successful")
	}
}

func TestPausedProcessStops(t *testing.T) {
	t.Parallel()
	// Without a handler of its own, Linux would end even a paused program at once.
	p := Start(t, "paused", exec.Command("sh", "-c", `trap "exit 0" TERM; echo ready; while :; do sleep 0.1; done`))
	p.AwaitLine(t, "ready")
	p.Pause(t)
	p.Stop(t)
	if !p.cmd.ProcessState.Success() {
		t.Errorf("ended with %v, want an orderly end", p.cmd.ProcessState)
	}
}

// failures records what a helper under test reports, in place of failing the real test.
type failures struct {
	testing.TB
	failed bool
}

func (f *failures) Helper()               {}
func (f *failures) Errorf(string, ...any) { f.failed = true }
func (f *failures) Failed() bool          { return false }

func TestUnexpectedEndIsAnError(t *testing.T) {
	t.Parallel()
	p := Start(t, "short", exec.Command("sh", "-c", "exit 1"))
	<-p.done
	seen := &failures{TB: t}
	p.finish(seen)
	if !seen.failed {
		t.Error("a program that ended by itself must fail the test")
	}
	p.expected.Store(true)
}
