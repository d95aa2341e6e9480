package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
)

// phases run in a child each. A phase that does not close the store ends like a crash.
var phases = map[string]func(*worker){
	"fill":   opened((*worker).fillPhase),
	"list":   opened((*worker).listPhase),
	"use":    (*worker).usePhase,
	"start":  (*worker).startPhase,
	"close":  opened(func(*worker) {}),
	"expire": opened((*worker).fillExpired),
	"sweep":  opened(func(w *worker) { w.sweep("sweep") }),
	"cold":   opened(func(w *worker) { w.sweep("sweep, cold") }),
}

// opened opens the store for a phase and closes it.
func opened(phase func(*worker)) func(*worker) {
	return func(w *worker) {
		w.open()
		phase(w)
		w.Close()
	}
}

func (w *worker) fillPhase() {
	begun := time.Now()
	tenths := w.fill(stores.Callers)
	fmt.Printf("| logins/s, %d callers | %.0f |\n| first tenth, last tenth | %.0f, %.0f |\n",
		stores.Callers, float64(w.sessions)/time.Since(begun).Seconds(), tenths[0], tenths[len(tenths)-1])
}

// startPhase prints for one start: seconds, megabytes read from the disk, of memory and of live heap.
func (w *worker) startPhase() {
	before, read, begun := memory().Anonymous, diskReads(), time.Now()
	liveBefore := live()
	stop := watchMemory()
	w.open()
	took := time.Since(begun).Seconds()
	fmt.Println(took, mb(diskReads()-read), mb(stop()-before), mb(live()-liveBefore))
}

// usePhase uses a full store and prints memory and rates. With bolt it ends by SIGKILL during writes.
func (w *worker) usePhase() {
	store := "bolt"
	if strings.HasPrefix(w.place, "unix://") {
		store = "redis"
	}
	begin := memory()
	fmt.Printf("| %s: in use | /s | median ms | p99 ms | longest ms | anonymous + MB | most + MB | of files MB | live MB |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n", store)
	fmt.Printf("| process before it opens anything |  |  | |  | (%.0f) |  | %.0f |  |\n", mb(begin.Anonymous), mb(begin.File))
	row := func(name string, showLive bool, do func() load.Result) {
		stop := watchMemory()
		r := do()
		most, now, heap, waits := stop(), memory(), "", " |  |  | "
		if showLive {
			heap = fmt.Sprintf("%.1f", mb(live()))
		}
		if r.Calls > 0 {
			waits = fmt.Sprintf("%.0f | %.2f | %.1f | %.1f", r.Rate(), millis(r, 0.5), millis(r, 0.99), millis(r, 1))
		}
		fmt.Printf("| %s | %s | %+.0f | %+.0f | %.0f | %s |\n", name, waits, mb(now.Anonymous-begin.Anonymous), mb(most-begin.Anonymous), mb(now.File), heap)
	}
	seconds := float64(w.seconds)
	row("opened", true, func() load.Result { w.open(); return load.Result{} })
	row(fmt.Sprintf("%d reads of any session, nothing written", w.sessions), true, func() load.Result { return load.Times(w.sessions, stores.Callers, w.peek) })
	row("requests of any session, 2,000/s", false, func() load.Result { return within(seconds, 2000, w.request) })
	row("requests of any session as fast as they go", false, func() load.Result { return within(seconds/3, 0, w.request) })
	row("logins", false, func() load.Result { return within(seconds/3, 0, w.login) })
	row("refreshes", false, func() load.Result { return within(seconds, 0, w.refreshAndWrite) })
	w.idToken.Store(true)
	row("refreshes that bring an ID token", true, func() load.Result { return within(seconds, 0, w.refreshAndWrite) })
	if store == "redis" {
		w.wire()
		w.Close()
		return
	}
	go within(60, 0, w.refreshAndWrite)
	time.Sleep(2 * time.Second)
	check.OK(syscall.Kill(os.Getpid(), syscall.SIGKILL))
}

// wire prints the bytes on the wire.
func (w *worker) wire() {
	server := process.RedisAt(w.place)
	fmt.Printf("\n| redis: bytes on the wire, and commands, for each | to redis | from redis | commands |\n|---|---:|---:|---:|\n")
	row := func(name string, do func() load.Result) {
		before, r := server.Info("stats"), do()
		time.Sleep(2 * time.Second) // for writes in the background
		after := server.Info("stats")
		each := func(name string) float64 { return (after(name) - before(name)) / float64(r.Calls) }
		fmt.Printf("| %s | %.0f | %.0f | %.1f |\n", name, each("total_net_input_bytes:"), each("total_net_output_bytes:"), each("total_commands_processed:"))
	}
	w.idToken.Store(false)
	row("read of a session that is not kept", func() load.Result { return load.Times(w.sessions/10, stores.Callers, w.peek) })
	row("request (after five minutes unused: and a write)", func() load.Result { return within(5, 1000, w.request) })
	row("login", func() load.Result { return within(5, 0, w.login) })
	row("refresh", func() load.Result { return within(5, 0, w.refreshAndWrite) })
	w.idToken.Store(true)
	row("refresh that brings an ID token", func() load.Result { return within(5, 0, w.refreshAndWrite) })
}

func memory() machine.Memory { return machine.MemoryOf(os.Getpid()) }

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
	return int64(machine.Field(string(text), "read_bytes:")) // 0: unknown
}

// watchMemory samples the memory of this process. The returned function returns the largest.
func watchMemory() func() int64 {
	most := make(chan int64)
	go func() {
		largest := int64(0)
		for {
			largest = max(largest, memory().Anonymous)
			select {
			case most <- largest:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() int64 { return max(<-most, memory().Anonymous) }
}
