// Command proxy measures what a login costs: Caddy with the module, its sessions
// in a file (bolt) and in Redis, against plain Caddy with reverse_proxy alone,
// in turns in one run. Other login proxies are measured beside it if they are
// installed, in PATH or in peers/bin, where make bench-peers puts them.
//
//	go run ./proxy [-quick] [-gate] [-due 20] [-storms 5] [-neighbour 5] [-sessions 1,10000] [-out results]
//
// It writes a table (table.md), a plot (plot.svg) and all figures (raw.json),
// and prints the table. What counts are the ratios, as the absolute figures are
// those of the machine. If that was busy with something else, the command says
// so and prints no table, unless -force is given.
//
// The subjects run on one CPU, and what asks and answers them on another, if
// there are two: the load, the app, the authorization server, and Redis, to which
// a socket leads. Plain Caddy runs twice, which tells how far apart two runs of
// the same are; everything is started anew four times, as no two processes are alike.
// It works on Linux only.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	sessions  []int
	active    int
	rounds    int
	gateOnly  bool
	due       int
	storms    int
	neighbour int
	quick     bool
	force     bool
	out       string
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := run
	if o.neighbour > 0 {
		do = neighbour
	}
	if err := do(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("proxy", flag.ContinueOnError)
	flags.Func("sessions", "numbers of sessions to measure with, separated by commas (default 1,10000)", func(text string) error {
		for field := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(field)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of sessions", field)
			}
			o.sessions = append(o.sessions, n)
		}
		return nil
	})
	flags.IntVar(&o.active, "active", 1000, "of the sessions, how many are in use")
	flags.IntVar(&o.rounds, "rounds", 28, "rounds of the gate; the other loads have fewer")
	flags.BoolVar(&o.gateOnly, "gate", false, "measure the gate only: 16 requests at a time, and 1; by default with 1 session")
	flags.IntVar(&o.due, "due", 0, "measure only that many rounds of requests while tokens are refreshed, with each store, and print them")
	flags.IntVar(&o.storms, "storms", 0, "measure only that many storms of refreshes with each store, and print them")
	flags.IntVar(&o.neighbour, "neighbour", 0, "measure only that many rounds of requests of a site while the server of another site is down, and print them")
	flags.BoolVar(&o.quick, "quick", false, "see that everything works, in a minute or two")
	flags.BoolVar(&o.force, "force", false, "print the table even if the machine was too noisy, and say so in it")
	flags.StringVar(&o.out, "out", "results", "directory for the table, the plot and the figures")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case o.refreshesOnly(), o.gateOnly && o.sessions == nil:
		o.sessions = []int{1}
	case o.sessions == nil:
		o.sessions = []int{1, 10_000}
	}
	if o.quick {
		o.rounds = min(o.rounds, 2)
	}
	return o, nil
}

// refreshesOnly: nothing is measured but what refreshes do to requests.
func (o options) refreshesOnly() bool { return o.due > 0 || o.storms > 0 }

// slot is how long a measurement takes. Many short ones tell more than a few long
// ones: what slows a machine down comes and goes by the second.
func (o options) slot() time.Duration {
	if o.quick {
		return 300 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// laps is how often everything is started anew. Where a process has its memory by
// chance makes it a few per cent faster or slower than its twin, for as long as it
// runs.
func (o options) laps(sessions int) int {
	if o.refreshesOnly() || o.quick || sessions > 10_000 {
		return 1 // which would take longer than what is measured
	}
	return max(min(4, o.rounds), 1)
}

// patience is how long the run may wait for a quiet machine and repeat slots,
// all in all.
func (o options) patience() time.Duration {
	if o.quick {
		return 5 * time.Second
	}
	return 3 * time.Minute
}
