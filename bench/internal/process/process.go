// Package process runs the programs of a measurement as child processes that cannot outlive it.
package process

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
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

// Start runs a command and waits until it is ready. Its output goes to a file of the directory.
func Start(ctx context.Context, dir string, cmd *exec.Cmd, ready func() bool) *Process {
	name := filepath.Base(cmd.Path)
	defer check.Doing("starting %s", name)
	log := check.Value(os.Create(filepath.Join(dir, name+".log")))
	defer log.Close()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	check.OK(cmd.Start())
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for !ready() {
		var err error
		select {
		case <-time.After(5 * time.Millisecond):
			continue
		case <-p.done:
			err = errors.Join(errors.New("ended before it was ready"), p.err)
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.Stop()
		text, _ := os.ReadFile(log.Name()) // the first error is the cause
		check.Failf("%w\n%s", err, text[max(0, len(text)-logTail):])
	}
	return p
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
func StartRedis(ctx context.Context, dir string) *Redis {
	r := &Redis{socket: filepath.Join(dir, "redis.sock")}
	cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", r.socket, "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
		"--tracking-table-max-keys", "100000", "--loglevel", "warning")
	r.Process = Start(ctx, dir, cmd, func() (ready bool) {
		err := check.Run(func() { ready = r.Info("persistence")("loading:") == 0 })
		return ready && err == nil
	})
	return r
}

// RedisAt is a server that another process has started.
func RedisAt(url string) *Redis { return &Redis{socket: strings.TrimPrefix(url, "unix://")} }

// URL is the address for a store.
func (r *Redis) URL() string { return "unix://" + r.socket }

// do sends one command and returns the whole answer.
func (r *Redis) do(command string) string {
	defer check.Doing("sending %s to Redis", command)
	conn := check.Value(net.DialTimeout("unix", r.socket, time.Second))
	defer conn.Close()
	// A server that forks or waits for a slow disk does not answer for a long time.
	check.OK(conn.SetDeadline(time.Now().Add(5 * time.Minute)))
	check.Value(io.WriteString(conn, command+"\r\nQUIT\r\n"))
	return string(check.Value(io.ReadAll(conn)))
}

// Info returns the numbers of a section of INFO. A missing number is 0.
func (r *Redis) Info(section string) func(name string) float64 {
	text := r.do("INFO " + section)
	return func(name string) float64 { return machine.Field(text, name) }
}

// Rewrite lets the server rewrite its append-only files.
func (r *Redis) Rewrite() {
	r.do("BGREWRITEAOF")
	for info := r.Info("persistence"); info("aof_rewrite_in_progress:")+info("aof_rewrite_scheduled:") > 0; info = r.Info("persistence") {
		time.Sleep(100 * time.Millisecond)
	}
}
