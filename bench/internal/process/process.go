// Package process runs the programs of a measurement as child processes that cannot outlive it.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

const (
	startTimeout = 10 * time.Minute // for a Redis that reads a large file from a slow disk
	stopTimeout  = 30 * time.Second
	logTail      = 4 << 10 // bytes of the log in an error
)

// A Process is a running child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // of Wait, valid once done is closed
}

// Start runs a command and waits until it is ready. Its output goes to a file of the directory, except
// for standard output that the command redirects.
func Start(ctx context.Context, dir string, cmd *exec.Cmd, ready func() bool) (*Process, error) {
	name := filepath.Base(cmd.Path)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if cmd.Stderr = log; cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := p.await(ctx, ready); err != nil {
		p.Stop()
		text, _ := os.ReadFile(log.Name()) // the first error is the cause
		return nil, fmt.Errorf("starting %s: %w\n%s", name, err, text[max(0, len(text)-logTail):])
	}
	return p, nil
}

var errEnded = errors.New("ended before it was ready")

func (p *Process) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.done:
			return errors.Join(errEnded, p.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Stop sends SIGTERM, and SIGKILL if the process does not end in time.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if the process has ended
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// A Redis is a redis-server on a socket, configured as docs/redis.md recommends.
type Redis struct {
	*Process
	socket string
}

// StartRedis starts a server with the data of a directory and waits until the data is loaded.
func StartRedis(ctx context.Context, dir string) (*Redis, error) {
	r := &Redis{socket: filepath.Join(dir, "redis.sock")}
	cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", r.socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
		"--tracking-table-max-keys", "100000", "--loglevel", "warning")
	var err error
	r.Process, err = Start(ctx, dir, cmd, func() bool {
		info, err := r.Info("persistence")
		return err == nil && info("loading:") == 0
	})
	return r, err
}

// RedisAt is a server that another process has started.
func RedisAt(url string) *Redis { return &Redis{socket: strings.TrimPrefix(url, "unix://")} }

// URL is the address for a store.
func (r *Redis) URL() string { return "unix://" + r.socket }

// Do sends one command and returns the whole answer.
func (r *Redis) Do(command string) (string, error) {
	conn, err := net.DialTimeout("unix", r.socket, time.Second)
	if err != nil {
		return "", fmt.Errorf("sending %s to Redis: %w", command, err)
	}
	defer conn.Close()
	// A server that forks or waits for a slow disk does not answer for a long time.
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return "", fmt.Errorf("sending %s to Redis: %w", command, err)
	}
	if _, err := io.WriteString(conn, command+"\r\nQUIT\r\n"); err != nil {
		return "", fmt.Errorf("sending %s to Redis: %w", command, err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("sending %s to Redis: %w", command, err)
	}
	return string(answer), nil
}

// Info returns the numbers of a section of INFO. A missing number is 0.
func (r *Redis) Info(section string) (func(name string) float64, error) {
	text, err := r.Do("INFO " + section)
	return func(name string) float64 {
		n, _ := machine.Field(text, name)
		return n
	}, err
}

// Rewrite lets the server rewrite its append-only files.
func (r *Redis) Rewrite() error {
	if _, err := r.Do("BGREWRITEAOF"); err != nil {
		return err
	}
	for {
		info, err := r.Info("persistence")
		if err != nil || info("aof_rewrite_in_progress:")+info("aof_rewrite_scheduled:") == 0 {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
