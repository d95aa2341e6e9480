package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

// redis measures the store in Redis.
func (r *run) redis() error {
	s := &redisServer{socket: filepath.Join(r.dir, "redis.sock"), dir: r.dir}
	r.Redis = "unix://" + s.socket
	if _, err := s.start(r); err != nil {
		return err
	}
	defer func() { s.stop() }()
	empty, err := s.info("memory")
	if err != nil {
		return err
	}
	o, err := r.steps(step{Do: "begin"}, step{Do: "open"}, step{Do: "fill", N: r.sessions}, step{Do: "close"})
	if err != nil {
		return err
	}
	fmt.Printf("| redis: filling | |\n|---|---:|\n")
	printFill(o[2])
	if err := r.redisMemory(s, empty); err != nil {
		return err
	}
	if err := r.redisUse(s); err != nil {
		return err
	}
	return r.redisStarts(s)
}

func (r *run) redisMemory(s *redisServer, empty string) error {
	full, err := s.info("memory")
	if err != nil {
		return err
	}
	each := func(name string) float64 {
		return float64(field(full, name)-field(empty, name)) / float64(r.sessions)
	}
	resident, err := machine.MemoryOf(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("| used_memory, MB | %.0f |\n| bytes a session | %.0f |\n| of these, data | %.0f |\n", mb(field(full, "used_memory:")), each("used_memory:"), each("used_memory_dataset:"))
	fmt.Printf("| most used_memory, MB | %.0f |\n", mb(field(full, "used_memory_peak:")))
	fmt.Printf("| resident, MB | %.0f |\n", mb(resident.Anonymous+resident.File))
	fmt.Printf("| append-only files, MB | %.0f |\n\n", mb(s.fileSize()))
	return nil
}

// redisUse also counts the bytes that go over the wire.
func (r *run) redisUse(s *redisServer) error {
	p, err := r.start()
	if err != nil {
		return err
	}
	defer p.kill()
	outcomes, err := r.use(p)
	if err != nil {
		return err
	}
	printUse("redis", outcomes)
	fmt.Printf("\n| redis: bytes on the wire, and commands, for each | to redis | from redis | commands |\n|---|---:|---:|---:|\n")
	for _, m := range []struct {
		name string
		step step
	}{
		{"read of a session that is not kept", step{Do: "peek", N: r.sessions / 10}},
		{"request (after five minutes unused: and a write)", step{Do: "request", Rate: 1000, Seconds: 5}},
		{"login", step{Do: "login", Seconds: 5}},
		{"refresh", step{Do: "refresh", Seconds: 5}},
		{"refresh that brings an ID token", step{Do: "refresh", Seconds: 5, IDToken: true}},
	} {
		before, err := s.info("stats")
		if err != nil {
			return err
		}
		o, err := p.do(m.step)
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second) // for what is written in the background
		after, err := s.info("stats")
		if err != nil {
			return err
		}
		each := func(name string) float64 { return float64(field(after, name)-field(before, name)) / float64(o.Done) }
		fmt.Printf("| %s | %.0f | %.0f | %.1f |\n", m.name, each("total_net_input_bytes:"), each("total_net_output_bytes:"), each("total_commands_processed:"))
	}
	fmt.Println()
	_, err = p.do(step{Do: "close"})
	return err
}

// redisStarts starts the server again with what it has on disk.
func (r *run) redisStarts(s *redisServer) error {
	fmt.Printf("| redis: start until it answers | s | append-only files, MB |\n|---|---:|---:|\n")
	for _, kind := range []struct {
		name    string
		rewrite bool
	}{{"with the commands as they came", false}, {"after BGREWRITEAOF", true}} {
		if kind.rewrite {
			if err := s.rewrite(); err != nil {
				return err
			}
		}
		s.stop()
		size := s.fileSize()
		took, err := s.start(r)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.0f |\n", kind.name, took.Seconds(), mb(size))
	}
	fmt.Println()
	return nil
}

// redisServer is one of our own, set up as docs/redis.md recommends.
type redisServer struct {
	cmd         *exec.Cmd
	socket, dir string
}

// start returns how long it took until the server had its data.
func (s *redisServer) start(r *run) (time.Duration, error) {
	s.cmd = exec.CommandContext(r.ctx, "redis-server", "--port", "0", "--unixsocket", s.socket, "--dir", s.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
		"--tracking-table-max-keys", "100000", "--loglevel", "warning")
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting redis-server: %w", err)
	}
	for time.Since(begun) < 10*time.Minute && r.ctx.Err() == nil {
		if text, err := s.info("persistence"); err == nil && field(text, "loading:") == 0 {
			return time.Since(begun), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.stop()
	return 0, fmt.Errorf("starting redis-server: it does not answer")
}

func (s *redisServer) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// rewrite has the server write its append-only files anew.
func (s *redisServer) rewrite() error {
	if _, err := s.ask("BGREWRITEAOF"); err != nil {
		return err
	}
	for {
		text, err := s.info("persistence")
		if err != nil {
			return err
		}
		if field(text, "aof_rewrite_in_progress:") == 0 && field(text, "aof_rewrite_scheduled:") == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *redisServer) info(section string) (string, error) { return s.ask("INFO " + section) }

// ask sends one command and returns all of the answer.
func (s *redisServer) ask(command string) (string, error) {
	conn, err := net.DialTimeout("unix", s.socket, time.Second)
	if err != nil {
		return "", fmt.Errorf("asking redis: %w", err)
	}
	defer conn.Close()
	// A server that forks, or waits for a slow disk, does not answer for long.
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return "", fmt.Errorf("asking redis: %w", err)
	}
	if _, err := io.WriteString(conn, command+"\r\nQUIT\r\n"); err != nil {
		return "", fmt.Errorf("asking redis: %w", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("asking redis: %w", err)
	}
	return string(answer), nil
}

// fileSize is that of the append-only files together.
func (s *redisServer) fileSize() (size int64) {
	files, _ := filepath.Glob(filepath.Join(s.dir, "appendonlydir", "*"))
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	return size
}
