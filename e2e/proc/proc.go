// Package proc runs the programs of a test as child processes that cannot outlive it. It works on Linux only.
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
	startLimit = 180 * time.Second // until a program must be ready, on a busy machine
	stopLimit  = 150 * time.Second // for an orderly end, before it is killed
	logTail    = 32 << 10          // bytes of the log shown when a test fails
)

// A Process is a running program. When the test ends it is stopped, and its output is shown if the test failed.
type Process struct {
	name     string
	cmd      *exec.Cmd
	log      string
	done     chan struct{} // closed when the program has ended
	err      error         // of Wait, valid once done is closed
	expected atomic.Bool   // its end was asked for
}

// Start starts the command with standard output and error in one file. It is an error of the test if the program ends
// before it is told to.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	f, err := os.CreateTemp(t.ArtifactDir(), name+"-*.log")
	if err != nil {
		t.Fatalf("creating the log of %s: %v", name, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	// A group of its own keeps a Ctrl-C in the terminal for the test; the death signal covers a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p := &Process{name: name, cmd: cmd, log: f.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { p.finish(t) })
	return p
}

func (p *Process) finish(t testing.TB) {
	select {
	case <-p.done:
		if !p.expected.Load() {
			t.Errorf("%s ended by itself: %v", p.name, p.err)
		}
	default:
		p.Stop(t)
	}
	if t.Failed() {
		log := p.Log(t)
		t.Logf("output of %s:\n%s", p.name, log[max(0, len(log)-logTail):])
	}
}

// Stop asks the program to end (SIGTERM) and waits for it. A program that does not end is killed, an error of the test.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.expected.Store(true)
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		t.Errorf("%s did not end within %v of being asked to", p.name, stopLimit)
		p.Kill(t)
	}
}

// Kill ends the program at once (SIGKILL), as a power cut would, and waits until it is gone.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.expected.Store(true)
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// Pause freezes the program (SIGSTOP): connections are accepted by the system but nothing answers until Resume.
func (p *Process) Pause(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
}

// Resume lets a paused program go on.
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
		// A paused program takes the signal only once it runs again.
		p.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// PID returns the number of the process.
func (p *Process) PID() string { return strconv.Itoa(p.cmd.Process.Pid) }

// Log returns everything the program has written so far.
func (p *Process) Log(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatalf("reading the log of %s: %v", p.name, err)
	}
	return string(content)
}

// AwaitLine waits until the program has written a whole line that starts with prefix and returns the rest of it.
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

// Await asks ready again and again until it says yes. The test fails when the program ends first or takes too long.
func (p *Process) Await(t testing.TB, what string, ready func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ready(ctx) {
		select {
		case <-p.done:
			p.expected.Store(true)
			t.Fatalf("%s ended before its %s: %v\n%s", filepath.Base(p.cmd.Path), what, p.err, p.Log(t))
		case <-ctx.Done():
			t.Fatalf("%s: no %s: %v", p.name, what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
