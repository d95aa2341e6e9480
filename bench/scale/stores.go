package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
)

// bolt measures the store in a file.
func (r run) bolt() {
	onDisk := filepath.Join(r.dir, "sessions.db")
	r.fillInMemory(onDisk)
	r.place = onDisk
	r.lists()
	// The phase ends by SIGKILL, which is an error, too.
	if err := check.Run(func() { r.child("use", os.Stdout) }); r.ctx.Err() != nil {
		check.OK(err)
	}
	fmt.Printf("| file then, MB | %.0f |\n\n", mb(stores.Size(r.place)))
	r.starts()
	r.sweeps()
}

// fillInMemory fills a file in memory, where a flush takes no time, and copies it to the disk: on a slow
// disk a million logins would take an hour. The cost of a login is measured later, in the full file.
func (r run) fillInMemory(onDisk string) {
	memory := check.Value(os.MkdirTemp("/dev/shm", "scale-*"))
	defer os.RemoveAll(memory)
	r.place = filepath.Join(memory, "sessions.db")
	fmt.Printf("| bolt: filling, in memory | |\n|---|---:|\n")
	r.child("fill", os.Stdout)
	in := check.Value(os.Open(r.place))
	defer in.Close()
	out := check.Value(os.OpenFile(onDisk, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600))
	n := check.Value(io.Copy(out, in))
	fmt.Printf("| file, MB | %.0f |\n| bytes a session | %.0f |\n\n", mb(n), float64(n)/float64(r.sessions))
	check.OK(errors.Join(out.Sync(), out.Close()))
}

// lists measures what an operator does, with the file in the page cache and without.
func (r run) lists() {
	fmt.Printf("bolt: an operator's list\n\n")
	r.child("list", os.Stdout)
	r.evict()
	fmt.Printf("bolt, cold: an operator's list\n\n")
	r.child("list", os.Stdout)
}

// starts opens the full file after a clean end and after a crash.
func (r run) starts() {
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
		var columns [4][]float64 // seconds; megabytes from disk, anonymous and live
		for range r.rounds {
			if !kind.crash {
				r.child("close", io.Discard)
			}
			if kind.cold {
				r.evict()
			}
			// The sweep writes when a file is opened, so the end of this phase leaves an unclean file.
			var out bytes.Buffer
			r.child("start", &out)
			for i := range columns {
				var v float64
				check.Value(fmt.Fscan(&out, &v))
				columns[i] = append(columns[i], v)
			}
		}
		s := figures.SpreadOf(columns[0])
		fmt.Printf("| %s | %.3f | %.3f–%.3f | %.0f | %.0f | %.1f |\n", kind.name, s.Median, s.Low, s.High,
			figures.SpreadOf(columns[1]).Median, figures.SpreadOf(columns[2]).Median, figures.SpreadOf(columns[3]).Median)
	}
	fmt.Println()
}

// sweeps lets items expire while sessions are used.
func (r run) sweeps() {
	fmt.Printf("| bolt: waits in ms, %d requests/s and %d refreshes/s | requests: median | p99 | p99.9 | longest | refreshes: median | p99 | longest | |\n|---|---:|---:|---:|---:|---:|---:|---:|---|\n",
		sweepRequests, sweepRefreshes)
	for range r.rounds {
		r.child("expire", os.Stdout)
		r.child("sweep", os.Stdout)
		r.child("expire", os.Stdout)
		r.evict()
		r.child("cold", os.Stdout)
	}
	fmt.Println()
}

// evict removes the file from the page cache, as after a restart of the computer.
func (r run) evict() {
	f := check.Value(os.Open(r.place))
	defer f.Close()
	check.OK(f.Sync()) // dirty pages would stay
	check.OK(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// redis measures the store in Redis.
func (r run) redis() {
	server := process.StartRedis(r.ctx, r.dir)
	defer func() { server.Stop() }()
	r.place = server.URL()
	empty := server.Info("memory")
	fmt.Printf("| redis: filling | |\n|---|---:|\n")
	r.child("fill", os.Stdout)
	full, resident := server.Info("memory"), machine.MemoryOf(server.PID())
	each := func(name string) float64 { return (full(name) - empty(name)) / float64(r.sessions) }
	fmt.Printf("| used_memory, MB | %.0f |\n| bytes a session | %.0f |\n| of these, data | %.0f |\n| most used_memory, MB | %.0f |\n| resident, MB | %.0f |\n| append-only files, MB | %.0f |\n\n",
		mb(full("used_memory:")), each("used_memory:"), each("used_memory_dataset:"), mb(full("used_memory_peak:")), mb(resident.Anonymous+resident.File), mb(r.appendOnlySize()))
	fmt.Printf("redis: an operator's list\n\n")
	r.child("list", os.Stdout)
	r.child("use", os.Stdout)
	fmt.Printf("\n| redis: start until it answers | s | append-only files, MB |\n|---|---:|---:|\n")
	for _, name := range []string{"with the commands as they came", "after BGREWRITEAOF"} {
		server.Stop()
		size, begun := r.appendOnlySize(), time.Now()
		server = process.StartRedis(r.ctx, r.dir)
		fmt.Printf("| %s | %.1f | %.0f |\n", name, time.Since(begun).Seconds(), mb(size))
		server.Rewrite()
	}
	fmt.Println()
}

// appendOnlySize is the size of the append-only files in bytes.
func (r run) appendOnlySize() (size int64) {
	files, _ := filepath.Glob(filepath.Join(r.dir, "appendonlydir", "*"))
	for _, name := range files {
		size += check.Value(os.Stat(name)).Size()
	}
	return size
}
