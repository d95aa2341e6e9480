// Command proxy measures the cost of a login: Caddy with the module, with its sessions in a file
// (bolt) and in Redis, compared to plain Caddy with reverse_proxy alone. All subjects take turns in
// one run. OAuth2 Proxy takes part if it is installed, in PATH or by make bench-peers.
//
//	go run ./proxy [-quick] [-force] [-gate] [-rounds 28] [-due 20] [-storms 5] [-neighbour 5] [-sessions 1,10000]
//
// It prints a table. Only the ratios count, as absolute figures depend on the machine. If the machine
// was busy with other work, the command says so and prints no table, unless -force is given.
//
// The subjects run on one CPU; the load, the app, the authorization server and Redis run on another,
// if there are two. Plain Caddy runs twice, which shows the noise of the machine. Everything is
// started four times, because no two processes are alike. It works on Linux only.
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

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
)

type options struct {
	sessions                       []int
	rounds, due, storms, neighbour int
	gateOnly, quick, force         bool
	// slot is the time of one measurement. Many short slots are steadier than a few long ones, because
	// disturbances last for seconds.
	slot time.Duration
}

func main() {
	o := parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	check.Main(func() {
		if o.neighbour > 0 {
			neighbour(ctx, o)
		} else {
			run(ctx, o)
		}
	})
}

func parse() (o options) {
	flag.Func("sessions", "numbers of sessions, separated by commas (default 1,10000)", func(text string) error {
		for field := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(field)
			if err != nil || n < 1 {
				return fmt.Errorf("got %q, want a number of sessions", field)
			}
			o.sessions = append(o.sessions, n)
		}
		return nil
	})
	flag.IntVar(&o.rounds, "rounds", 28, "rounds of the gate; other loads have fewer")
	flag.BoolVar(&o.gateOnly, "gate", false, "measure only the gate: 16 requests at a time, and 1; by default with 1 session")
	flag.IntVar(&o.due, "due", 0, "measure only requests while tokens are refreshed, with this number of rounds for each store")
	flag.IntVar(&o.storms, "storms", 0, "measure only storms of refreshes, this number of them for each store")
	flag.IntVar(&o.neighbour, "neighbour", 0, "measure only requests of a site while the server of another site is down, with this number of rounds")
	flag.BoolVar(&o.quick, "quick", false, "check in a minute or two that everything works")
	flag.BoolVar(&o.force, "force", false, "print the table even if the machine was too noisy, with a note about that")
	flag.Parse()
	switch {
	case o.refreshesOnly(), o.gateOnly && o.sessions == nil:
		o.sessions = []int{1}
	case o.sessions == nil:
		o.sessions = []int{1, 10_000}
	}
	o.slot = 500 * time.Millisecond
	if o.quick {
		o.rounds, o.slot = min(o.rounds, 2), 300*time.Millisecond
	}
	return o
}

// refreshesOnly reports whether only the effect of refreshes on requests is measured.
func (o options) refreshesOnly() bool { return o.due > 0 || o.storms > 0 }

// laps is the number of times that everything is started. The memory layout of a process makes it a
// few per cent faster or slower than another instance for as long as it runs.
func (o options) laps(sessions int) int {
	if o.refreshesOnly() || o.quick || sessions > 10_000 {
		return 1 // with many sessions the start would take longer than the measurement
	}
	return max(min(4, o.rounds), 1)
}

// plan returns the cells for a number of sessions. The gate is first. With many sessions there are no
// further cells, since the cost of protocol and size does not depend on that number.
func plan(sessions int, gateOnly bool) []figures.Cell {
	cells := []figures.Cell{
		{Size: 200, Concurrency: 16}, {Size: 200, Concurrency: 1}, {Size: 200, Concurrency: 64}, {Size: 200, Concurrency: 256},
		{Size: 10 << 10, Concurrency: 16}, {Size: 10 << 10, Concurrency: 1},
		{HTTP2: true, Size: 200, Concurrency: 16}, {HTTP2: true, Size: 200, Concurrency: 1}, {HTTP2: true, Size: 10 << 10, Concurrency: 16},
	}
	if gateOnly || sessions > 1 {
		cells = cells[:2]
	}
	for i := range cells {
		cells[i].Sessions = sessions
	}
	return cells
}
