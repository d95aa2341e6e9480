// Command scale measures what very many sessions take: memory, disk, the time
// to start, what the sweep of expired sessions costs those who wait, and how
// many refreshes a second go on a full store. docs/scale.md tells the figures.
//
//	go run ./scale [-sessions 1000000] [-seconds 30] [-rounds 3] [-only bolt]
//
// Each store is opened in a process of its own, so that the memory is that of
// one store alone, and so that it can be killed. The files are made in TMPDIR:
// a million sessions take 12 GB there. It starts a redis-server of its own, which
// has to be installed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func main() {
	var o options
	asWorker := flag.Bool("worker", false, "work for another process (internal)")
	flag.IntVar(&o.sessions, "sessions", 1_000_000, "sessions in each store")
	flag.IntVar(&o.seconds, "seconds", 30, "how long refreshes are measured")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of starts and sweeps, of which the median counts")
	flag.StringVar(&o.only, "only", "", "measure one store: bolt or redis")
	flag.Parse()
	do := func() error { return measure(o) }
	if *asWorker {
		do = func() error { return work(os.Stdin, os.Stdout) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct {
	sessions, seconds, rounds int
	only                      string
}

func measure(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "scale-*")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d sessions; %s; %s of memory\n\n", o.sessions, machine.Describe(), installed())
	for _, store := range []struct {
		name string
		run  func(*run) error
	}{{"bolt", (*run).bolt}, {"redis", (*run).redis}} {
		if o.only != "" && o.only != store.name {
			continue
		}
		r := &run{options: o, ctx: ctx, dir: dir, hello: hello{
			Key: seal.NewKey().Encode(), Secrets: filepath.Join(dir, store.name+".secrets"),
		}}
		if err := store.run(r); err != nil {
			return fmt.Errorf("%s: %w", store.name, err)
		}
	}
	return nil
}

// run measures one store.
type run struct {
	options
	hello
	ctx context.Context
	dir string
}

// progress says on standard error what was just measured.
func progress(o outcome) {
	fmt.Fprintf(os.Stderr, "%-8s %8.2f s %9d done, anonymous %4d MB (most %4d), of files %4d MB, live %3d MB\n",
		o.Do, o.Seconds, o.Done, o.Memory.Anonymous/1e6, o.Most/1e6, o.Memory.File/1e6, o.Live/1e6)
}
