package main

import (
	"context"
	"os/exec"
	"syscall"
)

// command is like exec.CommandContext, for a program that may start others: all of them are asked to end when ctx is
// over, and only then. A group of their own keeps a Ctrl-C in the terminal for the demo, which ends them in order.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit // then it is killed
	return cmd
}

// tail keeps the last bytes that were written to it.
type tail struct{ kept []byte }

const tailSize = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.kept) }
