// Package proc runs the programs of a test as child processes that end with it. It works on Linux only.
package proc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 180 * time.Second // for Await, on a busy machine
	stopLimit  = 150 * time.Second // from SIGTERM to SIGKILL
	logTail    = 32 << 10          // bytes of the log in the output of a failed test
)

// A Process is a running program. It stops at the end of the test. A failed test shows its output.
type Process struct {
	name     string
	cmd      *exec.Cmd
	log      string        // file
	done     chan struct{} // closed when the program has ended
	err      error         // of Wait, valid once done is closed
	stopping atomic.Bool   // the test has ended the program, or has reported its end
}

// Start starts the command with standard output and error in one file. The test fails if the program ends before the
// test stops it.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	f, err := os.CreateTemp(t.ArtifactDir(), name+"-*.log")
	if err != nil {
		t.Fatalf("creating the log of %s: %v", name, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	// In its own process group, the program does not get a Ctrl-C from the terminal. Pdeathsig ends it if the test is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p := &Process{name: name, cmd: cmd, log: f.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { p.cleanUp(t) })
	return p
}

func (p *Process) cleanUp(t testing.TB) {
	select {
	case <-p.done:
		if !p.stopping.Load() {
			t.Errorf("%s ended before the test stopped it: %v", p.name, p.err)
		}
	default:
		p.Stop(t)
	}
	if t.Failed() {
		log := p.Log(t)
		t.Logf("output of %s:\n%s", p.name, log[max(0, len(log)-logTail):])
	}
}

// Stop sends SIGTERM and waits until the program has ended. After stopLimit it kills the program and fails the test.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.stopping.Store(true)
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		t.Errorf("%s did not end within %v after SIGTERM", p.name, stopLimit)
		p.Kill(t)
	}
}

// Kill sends SIGKILL, like a power cut, and waits until the program has ended.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.stopping.Store(true)
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// Pause suspends the program (SIGSTOP) until Resume. The kernel still accepts connections for it.
func (p *Process) Pause(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
}

// Resume continues a paused program (SIGCONT).
func (p *Process) Resume(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
}

func (p *Process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	err := p.cmd.Process.Signal(sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signalling %s: %v", p.name, err)
	}
	if sig == syscall.SIGTERM {
		// A paused program handles SIGTERM only after SIGCONT.
		p.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// PID returns the process ID, which is the name of its directory below /proc.
func (p *Process) PID() string { return strconv.Itoa(p.cmd.Process.Pid) }

// Log returns the program's output so far.
func (p *Process) Log(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatalf("reading the log of %s: %v", p.name, err)
	}
	return string(content)
}

// AwaitLine waits until the program has written a whole line with the prefix. It returns the line without the prefix.
func (p *Process) AwaitLine(t testing.TB, prefix string) string {
	t.Helper()
	var rest string
	p.Await(t, "line "+prefix, func(context.Context) bool {
		for line := range strings.Lines(p.Log(t)) {
			after, found := strings.CutPrefix(line, prefix)
			if found && strings.HasSuffix(line, "\n") {
				rest = strings.TrimSuffix(after, "\n")
				return true
			}
		}
		return false
	})
	return rest
}

// Await waits until ready returns true. The test fails if the program ends first or startLimit passes. event names the
// expected event in failure messages.
func (p *Process) Await(t testing.TB, event string, ready func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ready(ctx) {
		select {
		case <-p.done:
			p.stopping.Store(true)
			t.Fatalf("%s ended before its %s: %v\n%s", filepath.Base(p.cmd.Path), event, p.err, p.Log(t))
		case <-ctx.Done():
			t.Fatalf("%s: got no %s: %v", p.name, event, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
