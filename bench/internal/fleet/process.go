package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	startLimit = 3 * time.Minute // with a large file of sessions on a slow disk
	stopLimit  = 30 * time.Second
	logTail    = 4 << 10 // bytes of a log in an error
)

// process is a child that cannot outlive this program.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // of Wait, valid then
}

// start runs a command with its output in a file in dir, and waits until it is
// ready.
func start(ctx context.Context, dir, name string, cmd *exec.Cmd, ready func() bool) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	f, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := p.await(ctx, ready); err != nil {
		p.stop()
		log, _ := os.ReadFile(p.log) // the error is the one that counts
		return nil, fmt.Errorf("starting %s: %w\n%s", name, err, log[max(0, len(log)-logTail):])
	}
	return p, nil
}

func (p *process) await(ctx context.Context, ready func() bool) error {
	limit := time.After(startLimit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.done:
			return fmt.Errorf("it has ended: %w", errors.Join(p.err, errEnded))
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("it is not ready after %v", startLimit)
		case <-tick.C:
		}
	}
	return nil
}

var errEnded = errors.New("before it was ready")

// stop asks the process to end, and ends it if it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-p.done:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }
