package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

// activeSessions is the largest number of sessions in use at a time.
const activeSessions = 1000

// bench measures the subjects of one fleet after another.
type bench struct {
	options
	*fleet.Fleet
	known  map[int][]int // processes of the measurement by CPU
	report figures.Report
}

func run(ctx context.Context, o options) {
	exe, peer := fleet.Build(ctx), fleet.FindPeer()
	b := &bench{options: o, report: figures.Report{
		Run: figures.Run{Baseline: fleet.Plain}, Twin: fleet.PlainAgain, Header: fleet.PlainHeader, Machine: machine.Describe(),
		Gate: plan(o.sessions[0], true)[0], GateRounds: o.rounds / o.laps(o.sessions[0]) * o.laps(o.sessions[0]),
		Note: fleet.PeerName + " was not measured: it is not installed (make bench-peers).",
	}}
	if peer != nil {
		b.report.Peer = fleet.PeerName
		b.report.Note = fmt.Sprintf("%s is %s. It keeps its sessions in Redis, and takes part with up to %d of them.", fleet.PeerName, peer.Version, fleet.RealLogins)
	}
	for _, sessions := range o.sessions {
		for lap := range o.laps(sessions) {
			fleet.With(ctx, exe, sessions, peer, func(f *fleet.Fleet) {
				b.Fleet = f
				b.lap(ctx, lap)
			})
		}
	}
	if o.refreshesOnly() {
		fmt.Print(b.report.RefreshTables())
		return
	}
	b.report.Print(o.force)
}

// lap measures a fleet.
func (b *bench) lap(ctx context.Context, lap int) {
	defer check.Doing("measuring with %d sessions", b.Sessions)
	defer b.pin()()
	if b.refreshesOnly() {
		b.refreshes(ctx, b.due, b.storms, stormSessions)
		return
	}
	first := !b.gateOnly && lap == 0
	if first {
		b.sizes(ctx)
	}
	for _, s := range b.Subjects {
		rand.Shuffle(len(s.Cookies), func(i, j int) { s.Cookies[i], s.Cookies[j] = s.Cookies[j], s.Cookies[i] })
		s.Cookies = s.Cookies[:min(len(s.Cookies), activeSessions)]
	}
	rounds := b.rounds / b.laps(b.Sessions)
	for i, c := range plan(b.Sessions, b.gateOnly) {
		// The gate has all rounds. The peer takes part in the cells with the most rounds.
		b.cell(ctx, c, lap, max(rounds*[]int{7, 5, 3}[min(i, 2)]/7, 1), i < 2)
	}
	switch {
	case !first || b.Sessions != b.sessions[0]:
	case b.quick:
		b.refreshes(ctx, 1, 1, 200)
	default:
		b.refreshes(ctx, max(b.rounds/2, 1), 3, stormSessions)
	}
}

// cell measures the subjects in turns, and each round begins with another subject. Rounds are numbered
// through all laps.
func (b *bench) cell(ctx context.Context, c figures.Cell, lap, rounds int, peer bool) {
	subjects := slices.Clone(b.Subjects)
	if !peer {
		subjects = slices.DeleteFunc(subjects, (*fleet.Subject).IsPeer)
	}
	for round := range rounds {
		for i := range subjects {
			slot := b.measure(ctx, c, subjects[(round+i)%len(subjects)])
			slot.Round = lap*rounds + round
			b.report.Slots = append(b.report.Slots, slot)
		}
		fleet.Progress("%s: lap %d, round %d of %d", c, lap+1, round+1, rounds)
	}
}

// pin binds the subjects to one CPU and everything else to another, if there are two. The returned
// function releases this process.
func (b *bench) pin() func() {
	cpus := machine.CPUs()
	first, second := cpus[0], cpus[min(1, len(cpus)-1)]
	b.known = map[int][]int{}
	for _, s := range b.Subjects {
		b.known[first] = append(b.known[first], s.PID())
	}
	b.known[second] = append(b.known[second], os.Getpid(), b.Redis.PID())
	for cpu, pids := range b.known {
		for _, pid := range pids {
			machine.Pin(pid, cpu)
		}
	}
	threads := runtime.GOMAXPROCS(1)
	return func() {
		runtime.GOMAXPROCS(threads)
		machine.Pin(os.Getpid(), cpus...)
	}
}

// sizes uses each session once and measures the memory of the subjects.
func (b *bench) sizes(ctx context.Context) {
	var plain figures.Size
	for _, s := range b.Subjects {
		if s.IsPeer() || s.Name != fleet.Plain && !s.LogsIn() {
			continue
		}
		t := s.Target(200, false)
		if !s.LogsIn() {
			t.Cookies = make([]string, min(b.Sessions, 10_000)) // without sessions, memory does not grow further
		}
		load.Once(ctx, t, 64, 0, false)
		memory := machine.MemoryOf(s.PID())
		size := figures.Size{
			Subject: s.Name, Sessions: b.Sessions, Started: s.Started, StoreBytes: b.StoreBytes[s.Name],
			Anonymous: memory.Anonymous - plain.Anonymous, File: memory.File - plain.File, Live: int64(s.Heap(ctx, true).Live) - plain.Live,
		}
		fleet.Progress("%s: each of %d sessions was used once", s.Name, b.Sessions)
		if s.LogsIn() {
			b.report.Sizes = append(b.report.Sizes, size)
		} else {
			plain = size
		}
	}
}

const warmUp = 150 * time.Millisecond

// measure measures a subject, and checks that every request reached the app with the right token.
func (b *bench) measure(ctx context.Context, c figures.Cell, s *fleet.Subject) figures.Slot {
	defer check.Doing("measuring %s, %v", s.Name, c)
	slot := figures.Slot{Cell: c, Subject: s.Name}
	requests, bearers := b.Counts()
	before, again := s.Heap(ctx, false), s.Heap(ctx, false) // the second reading shows the cost of the first
	result := load.During(ctx, s.Target(c.Size, c.HTTP2), c.Concurrency, func(record func(time.Duration)) {
		time.Sleep(warmUp)
		slot.Others = machine.Others(b.known, func() {
			cpu, redis := machine.ProcessCPU(s.PID()), machine.ProcessCPU(b.Redis.PID())
			b.TokenRequests() // drops earlier ones
			record(b.slot)
			slot.Refreshes = b.TokenRequests().Calls
			slot.CPU, slot.RedisCPU = machine.ProcessCPU(s.PID())-cpu, machine.ProcessCPU(b.Redis.PID())-redis
		})
	})
	after := s.Heap(ctx, false)
	requestsNow, bearersNow := b.Counts()
	want := 0
	if s.LogsIn() {
		want = result.Calls
	}
	if got, tokens := int(requestsNow-requests), int(bearersNow-bearers); got != result.Calls || tokens != want {
		check.Failf("the app got %d requests and %d valid tokens, want %d and %d", got, tokens, result.Calls, want)
	}
	slot.Allocations = (after.Objects - 2*again.Objects + before.Objects) / float64(result.Calls)
	slot.AllocatedBytes = (after.Bytes - 2*again.Bytes + before.Bytes) / float64(result.Calls)
	slot.Requests, slot.Elapsed = len(result.Took), result.Elapsed
	slot.P50, slot.P99 = result.Quantile(0.50), result.Quantile(0.99)
	check.OK(ctx.Err())
	return slot
}
