package main

import (
	"context"
	"os/exec"
	"syscall"
)

// command is exec.CommandContext for a program with child processes. At the end of ctx it sends SIGTERM to all of them.
// They run in their own process group, so that only the demo gets a Ctrl-C from the terminal.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit // from SIGTERM to SIGKILL
	return cmd
}

// tail is a Writer that keeps the last tailSize bytes.
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
