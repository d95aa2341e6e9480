package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

// process is a worker as its parent sees it.
type process struct {
	cmd      *exec.Cmd
	in       io.Closer
	steps    *json.Encoder
	outcomes *json.Decoder
}

func (r *run) start() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	cmd := exec.CommandContext(r.ctx, self, "-worker")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	p := &process{cmd: cmd, in: in, steps: json.NewEncoder(in), outcomes: json.NewDecoder(out)}
	if err := p.steps.Encode(r.hello); err != nil {
		p.kill()
		return nil, fmt.Errorf("starting a worker: %w", err)
	}
	return p, nil
}

// do has a step done.
func (p *process) do(s step) (o outcome, err error) {
	if err := p.steps.Encode(s); err != nil {
		return o, fmt.Errorf("%s: %w", s.Do, err)
	}
	if err := p.outcomes.Decode(&o); err != nil {
		return o, fmt.Errorf("%s: %w", s.Do, err)
	}
	progress(o)
	if o.Error != "" {
		return o, errors.New(o.Error)
	}
	return o, nil
}

// kill ends the worker as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// killAmidst ends it while a step is being done.
func (p *process) killAmidst(s step) error {
	if err := p.steps.Encode(s); err != nil {
		return fmt.Errorf("%s: %w", s.Do, err)
	}
	time.Sleep(2 * time.Second)
	p.kill()
	return nil
}

// steps does steps in a worker of their own, and kills it unless the last one
// closes the store.
func (r *run) steps(list ...step) ([]outcome, error) {
	p, err := r.start()
	if err != nil {
		return nil, err
	}
	defer p.kill()
	var outcomes []outcome
	for _, s := range list {
		o, err := p.do(s)
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// evict takes a file out of the page cache, as if the computer had been
// restarted. Others who use the computer keep theirs.
func evict(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("emptying the page cache: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // dirty pages stay
		return fmt.Errorf("emptying the page cache: %w", err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("emptying the page cache: %w", err)
	}
	return nil
}

// watchMemory notes the most anonymous memory that this process has until stop
// is called.
func watchMemory(most *int64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	look := func() {
		if m, err := machine.MemoryOf(os.Getpid()); err == nil {
			*most = max(*most, m.Anonymous)
		}
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			look()
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		look()
	}()
	return func() { cancel(); <-done }
}

// readBytes is what this process has had read from the disk (proc_pid_io(5)).
func readBytes() int64 {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	return field(string(text), "read_bytes:")
}

// installed is the memory of the computer in words.
func installed() string {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "some"
	}
	return fmt.Sprintf("%.0f GB", float64(field(string(text), "MemTotal:"))*1024/1e9)
}

// field returns the number behind a name in one of the lines.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name); ok {
			number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
			n, _ := strconv.ParseInt(number, 10, 64)
			return n
		}
	}
	return 0
}
