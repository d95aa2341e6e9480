package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
)

// phases run in a child each. A phase that does not close the store ends like a crash.
var phases = map[string]func(*worker) error{
	"fill":   (*worker).fillPhase,
	"use":    (*worker).usePhase,
	"start":  (*worker).startPhase,
	"close":  opened((*worker).nothing),
	"expire": opened((*worker).fillExpired),
	"sweep":  opened(func(w *worker) error { return w.sweep("sweep") }),
	"cold":   opened(func(w *worker) error { return w.sweep("sweep, cold") }),
}

// opened opens the store for a phase and closes it.
func opened(phase func(*worker) error) func(*worker) error {
	return func(w *worker) error {
		if err := w.open(); err != nil {
			return err
		}
		if err := phase(w); err != nil {
			return err
		}
		return w.Close()
	}
}

func (w *worker) nothing() error { return nil }

func (w *worker) fillPhase() error {
	return opened(func(w *worker) error {
		begun := time.Now()
		tenths, err := w.fill(stores.Callers)
		if err != nil {
			return err
		}
		fmt.Printf("| logins/s, %d callers | %.0f |\n| first tenth, last tenth | %.0f, %.0f |\n",
			stores.Callers, float64(w.sessions)/time.Since(begun).Seconds(), tenths[0], tenths[len(tenths)-1])
		return nil
	})(w)
}

// startPhase prints for one start: seconds, megabytes read from the disk, of memory and of live heap.
func (w *worker) startPhase() error {
	before, read, begun := memory().Anonymous, diskReads(), time.Now()
	liveBefore := live()
	stop := watchMemory()
	if err := w.open(); err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	fmt.Println(took, mb(diskReads()-read), mb(stop()-before), mb(live()-liveBefore))
	return nil
}

// usePhase uses a full store and prints memory and rates. With bolt it ends by SIGKILL during writes.
func (w *worker) usePhase() error {
	begin := memory()
	fmt.Printf("| %s: in use | /s | median ms | p99 ms | longest ms | anonymous + MB | most + MB | of files MB | live MB |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n", w.store())
	fmt.Printf("| process before it opens anything |  |  | |  | (%.0f) |  | %.0f |  |\n", mb(begin.Anonymous), mb(begin.File))
	seconds := float64(w.seconds)
	for _, row := range []struct {
		name string
		live bool // the row shows the live heap
		do   func() (load.Result, error)
	}{
		{"opened", true, func() (load.Result, error) { return load.Result{}, w.open() }},
		{fmt.Sprintf("%d reads of any session, nothing written", w.sessions), true, func() (load.Result, error) { return load.Times(w.sessions, stores.Callers, w.peek) }},
		{"requests of any session, 2,000/s", false, func() (load.Result, error) { return within(seconds, 2000, w.request) }},
		{"requests of any session as fast as they go", false, func() (load.Result, error) { return within(seconds/3, 0, w.request) }},
		{"logins", false, func() (load.Result, error) { return within(seconds/3, 0, w.login) }},
		{"refreshes", false, func() (load.Result, error) { return within(seconds, 0, w.refreshAndWrite) }},
		{"refreshes that bring an ID token", true, func() (load.Result, error) {
			w.idToken.Store(true)
			return within(seconds, 0, w.refreshAndWrite)
		}},
	} {
		stop := watchMemory()
		r, err := row.do()
		if err != nil {
			return err
		}
		most, now, heap, waits := stop(), memory(), "", " |  |  | "
		if row.live {
			heap = fmt.Sprintf("%.1f", mb(live()))
		}
		if r.Calls > 0 {
			waits = fmt.Sprintf("%.0f | %.2f | %.1f | %.1f", r.Rate(), millis(r, 0.5), millis(r, 0.99), millis(r, 1))
		}
		fmt.Printf("| %s | %s | %+.0f | %+.0f | %.0f | %s |\n", row.name, waits, mb(now.Anonymous-begin.Anonymous), mb(most-begin.Anonymous), mb(now.File), heap)
	}
	if w.store() == "redis" {
		if err := w.wire(); err != nil {
			return err
		}
		return w.Close()
	}
	go func() { _, _ = within(60, 0, w.refreshAndWrite) }()
	time.Sleep(2 * time.Second)
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// wire prints the bytes on the wire.
func (w *worker) wire() error {
	server := process.RedisAt(w.place)
	fmt.Printf("\n| redis: bytes on the wire, and commands, for each | to redis | from redis | commands |\n|---|---:|---:|---:|\n")
	for _, row := range []struct {
		name    string
		idToken bool
		do      func() (load.Result, error)
	}{
		{"read of a session that is not kept", false, func() (load.Result, error) { return load.Times(w.sessions/10, stores.Callers, w.peek) }},
		{"request (after five minutes unused: and a write)", false, func() (load.Result, error) { return within(5, 1000, w.request) }},
		{"login", false, func() (load.Result, error) { return within(5, 0, w.login) }},
		{"refresh", false, func() (load.Result, error) { return within(5, 0, w.refreshAndWrite) }},
		{"refresh that brings an ID token", true, func() (load.Result, error) { return within(5, 0, w.refreshAndWrite) }},
	} {
		w.idToken.Store(row.idToken)
		before, err := server.Info("stats")
		if err != nil {
			return err
		}
		r, err := row.do()
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second) // for writes in the background
		after, err := server.Info("stats")
		if err != nil {
			return err
		}
		each := func(name string) float64 { return (after(name) - before(name)) / float64(r.Calls) }
		fmt.Printf("| %s | %.0f | %.0f | %.1f |\n", row.name, each("total_net_input_bytes:"), each("total_net_output_bytes:"), each("total_commands_processed:"))
	}
	return nil
}

func memory() machine.Memory {
	m, _ := machine.MemoryOf(os.Getpid()) // the own process is readable
	return m
}

// live is the heap in use, in bytes.
func live() int64 {
	runtime.GC()
	runtime.GC() // pools survive the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// diskReads is the number of bytes that this process has read from the disk (proc_pid_io(5)).
func diskReads() int64 {
	text, _ := os.ReadFile("/proc/self/io")
	n, _ := machine.Field(string(text), "read_bytes:") // 0: unknown
	return int64(n)
}

// watchMemory samples the memory of this process. The returned function returns the largest.
func watchMemory() func() int64 {
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	var most int64
	watch.Go(func() {
		for {
			most = max(most, memory().Anonymous)
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return func() int64 { cancel(); watch.Wait(); return max(most, memory().Anonymous) }
}
