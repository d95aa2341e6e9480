package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
)

func (r run) store() string {
	if strings.HasPrefix(r.place, "unix://") {
		return "redis"
	}
	return "bolt"
}

// bolt measures the store in a file.
func (r run) bolt() error {
	onDisk := filepath.Join(r.dir, "sessions.db")
	if err := r.fillInMemory(onDisk); err != nil {
		return err
	}
	r.place = onDisk
	err := r.child("use", os.Stdout)
	if err != nil && r.ctx.Err() != nil { // the phase ends by SIGKILL, which is an error, too
		return err
	}
	info, err := os.Stat(r.place)
	if err != nil {
		return err
	}
	fmt.Printf("| file then, MB | %.0f |\n\n", mb(info.Size()))
	if err := r.starts(); err != nil {
		return err
	}
	return r.sweeps()
}

// fillInMemory fills a file in memory, where a flush takes no time, and copies it to the disk: on a slow
// disk a million logins would take an hour. The cost of a login is measured later, in the full file.
func (r run) fillInMemory(onDisk string) error {
	memory, err := os.MkdirTemp("/dev/shm", "scale-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(memory)
	r.place = filepath.Join(memory, "sessions.db")
	fmt.Printf("| bolt: filling, in memory | |\n|---|---:|\n")
	if err := r.child("fill", os.Stdout); err != nil {
		return err
	}
	in, err := os.Open(r.place)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(onDisk, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, in)
	fmt.Printf("| file, MB | %.0f |\n| bytes a session | %.0f |\n\n", mb(n), float64(n)/float64(r.sessions))
	return errors.Join(err, out.Sync(), out.Close())
}

// starts opens the full file after a clean end and after a crash.
func (r run) starts() error {
	fmt.Printf("| bolt: start and first request | s, median | smallest–largest | read from disk, MB | anonymous then, MB | live, MB |\n|---|---:|---:|---:|---:|---:|\n")
	for _, kind := range []struct {
		name        string
		crash, cold bool
	}{
		{"after kill -9, file in the page cache", true, false},
		{"after kill -9, cold", true, true},
		{"after a clean end, file in the page cache", false, false},
		{"after a clean end, cold", false, true},
	} {
		var seconds, disk, most, live []float64
		for range r.rounds {
			if !kind.crash {
				if err := r.child("close", io.Discard); err != nil {
					return err
				}
			}
			if kind.cold {
				if err := r.evict(); err != nil {
					return err
				}
			}
			// The sweep writes when a file is opened, so the end of this phase leaves an unclean file.
			var out bytes.Buffer
			if err := r.child("start", &out); err != nil {
				return err
			}
			var v [4]float64
			if _, err := fmt.Fscan(&out, &v[0], &v[1], &v[2], &v[3]); err != nil {
				return fmt.Errorf("reading the figures of a start: %w", err)
			}
			seconds, disk, most, live = append(seconds, v[0]), append(disk, v[1]), append(most, v[2]), append(live, v[3])
		}
		s := figures.SpreadOf(seconds)
		fmt.Printf("| %s | %.3f | %.3f–%.3f | %.0f | %.0f | %.1f |\n", kind.name, s.Median, s.Low, s.High,
			figures.SpreadOf(disk).Median, figures.SpreadOf(most).Median, figures.SpreadOf(live).Median)
	}
	fmt.Println()
	return nil
}

// sweeps lets items expire while sessions are used.
func (r run) sweeps() error {
	fmt.Printf("| bolt: waits in ms, %d requests/s and %d refreshes/s | requests: median | p99 | p99.9 | longest | refreshes: median | p99 | longest | |\n|---|---:|---:|---:|---:|---:|---:|---:|---|\n",
		sweepRequests, sweepRefreshes)
	for round := range 2 * r.rounds {
		if err := r.child("expire", os.Stdout); err != nil {
			return err
		}
		phase := "sweep"
		if round%2 == 1 {
			phase = "cold"
			if err := r.evict(); err != nil {
				return err
			}
		}
		if err := r.child(phase, os.Stdout); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

// evict removes the file from the page cache, as after a restart of the computer.
func (r run) evict() error {
	f, err := os.Open(r.place)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // dirty pages would stay
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// redis measures the store in Redis.
func (r run) redis() error {
	server, err := process.StartRedis(r.ctx, r.dir)
	if err != nil {
		return err
	}
	defer func() { server.Stop() }()
	r.place = server.URL()
	empty, err := server.Info("memory")
	if err != nil {
		return err
	}
	fmt.Printf("| redis: filling | |\n|---|---:|\n")
	if err := r.child("fill", os.Stdout); err != nil {
		return err
	}
	full, err := server.Info("memory")
	if err != nil {
		return err
	}
	resident, err := machine.MemoryOf(server.PID())
	if err != nil {
		return err
	}
	each := func(name string) float64 { return (full(name) - empty(name)) / float64(r.sessions) }
	fmt.Printf("| used_memory, MB | %.0f |\n| bytes a session | %.0f |\n| of these, data | %.0f |\n| most used_memory, MB | %.0f |\n| resident, MB | %.0f |\n| append-only files, MB | %.0f |\n\n",
		mb(full("used_memory:")), each("used_memory:"), each("used_memory_dataset:"), mb(full("used_memory_peak:")), mb(resident.Anonymous+resident.File), mb(r.appendOnlySize()))
	if err := r.child("use", os.Stdout); err != nil {
		return err
	}
	fmt.Printf("\n| redis: start until it answers | s | append-only files, MB |\n|---|---:|---:|\n")
	for _, name := range []string{"with the commands as they came", "after BGREWRITEAOF"} {
		server.Stop()
		size, begun := r.appendOnlySize(), time.Now()
		if server, err = process.StartRedis(r.ctx, r.dir); err != nil {
			return err
		}
		fmt.Printf("| %s | %.1f | %.0f |\n", name, time.Since(begun).Seconds(), mb(size))
		if err := server.Rewrite(); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

// appendOnlySize is the size of the append-only files in bytes.
func (r run) appendOnlySize() (size int64) {
	files, _ := filepath.Glob(filepath.Join(r.dir, "appendonlydir", "*"))
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	return size
}
