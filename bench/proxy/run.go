package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

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

func run(ctx context.Context, o options) error {
	exe, err := fleet.Build(ctx)
	if err != nil {
		return err
	}
	peer, err := fleet.FindPeer()
	if err != nil {
		return err
	}
	b := &bench{options: o, report: figures.Report{
		Run: figures.Run{Baseline: fleet.Plain}, Twin: fleet.PlainAgain, Header: fleet.PlainHeader, Machine: machine.Describe(),
		Gate: plan(o.sessions[0], true)[0], GateRounds: o.rounds / o.laps(o.sessions[0]) * o.laps(o.sessions[0]),
	}}
	b.report.Notes = []string{fleet.PeerName + " was not measured: it is not installed (make bench-peers)."}
	if peer != nil {
		b.report.Peer = fleet.PeerName
		b.report.Notes[0] = fmt.Sprintf("%s is %s. It keeps its sessions in Redis, and takes part with up to %d of them.", fleet.PeerName, peer.Version, fleet.RealLogins)
	}
	for _, sessions := range o.sessions {
		for lap := range o.laps(sessions) {
			if b.Fleet, err = fleet.Start(ctx, exe, sessions, peer); err == nil {
				err = b.lap(ctx, lap)
				b.Close()
			}
			if err != nil {
				return fmt.Errorf("measuring with %d sessions: %w", sessions, err)
			}
		}
	}
	if o.refreshesOnly() {
		fmt.Print(b.report.RefreshTables())
		return nil
	}
	return b.report.Print(o.force)
}

// lap measures a fleet.
func (b *bench) lap(ctx context.Context, lap int) error {
	unpin, err := b.pin()
	if err != nil {
		return err
	}
	defer unpin()
	if b.refreshesOnly() {
		return b.refreshes(ctx, b.due, b.storms, stormSessions)
	}
	first := !b.gateOnly && lap == 0
	if first {
		if err := b.sizes(ctx); err != nil {
			return err
		}
	}
	for _, s := range b.Subjects {
		rand.Shuffle(len(s.Cookies), func(i, j int) { s.Cookies[i], s.Cookies[j] = s.Cookies[j], s.Cookies[i] })
		s.Cookies = s.Cookies[:min(len(s.Cookies), activeSessions)]
	}
	rounds := b.rounds / b.laps(b.Sessions)
	for i, c := range plan(b.Sessions, b.gateOnly) {
		// The gate has all rounds. The peer takes part in the cells with the most rounds.
		if err := b.cell(ctx, c, lap, max(rounds*[]int{7, 5, 3}[min(i, 2)]/7, 1), i < 2); err != nil {
			return err
		}
	}
	switch {
	case !first || b.Sessions != b.sessions[0]:
		return nil
	case b.quick:
		return b.refreshes(ctx, 1, 1, 200)
	}
	return b.refreshes(ctx, max(b.rounds/2, 1), 3, stormSessions)
}

// cell measures the subjects in turns, and each round begins with another subject. Rounds are numbered
// through all laps.
func (b *bench) cell(ctx context.Context, c figures.Cell, lap, rounds int, peer bool) error {
	subjects := slices.Clone(b.Subjects)
	if !peer {
		subjects = slices.DeleteFunc(subjects, (*fleet.Subject).IsPeer)
	}
	for round := range rounds {
		for i := range subjects {
			slot, err := b.measure(ctx, c, subjects[(round+i)%len(subjects)], nil)
			if err != nil {
				return err
			}
			slot.Round = lap*rounds + round
			b.report.Slots = append(b.report.Slots, slot)
		}
		fleet.Progress("%s: lap %d, round %d of %d", c, lap+1, round+1, rounds)
	}
	return nil
}

// pin binds the subjects to one CPU and everything else to another, if there are two. The returned
// function releases this process.
func (b *bench) pin() (func(), error) {
	cpus, err := machine.CPUs()
	if err != nil {
		return nil, err
	}
	first, second := cpus[0], cpus[min(1, len(cpus)-1)]
	b.known = map[int][]int{first: b.PIDs()}
	b.known[second] = append(b.known[second], os.Getpid(), b.RedisPID())
	for cpu, pids := range b.known {
		for _, pid := range pids {
			if err := machine.Pin(pid, machine.Favoured, cpu); err != nil {
				return nil, err
			}
		}
	}
	threads := runtime.GOMAXPROCS(1)
	return func() {
		runtime.GOMAXPROCS(threads)
		_ = machine.Pin(os.Getpid(), machine.Normal, cpus...) // an error only makes later steps slower
	}, nil
}

// sizes uses each session once and measures the memory of the subjects.
func (b *bench) sizes(ctx context.Context) error {
	var plain figures.Size
	for _, s := range b.Subjects {
		if s.IsPeer() || s.Name != fleet.Plain && !s.LogsIn() {
			continue
		}
		t := s.Target(200, false)
		if !s.LogsIn() {
			t.Cookies = make([]string, min(b.Sessions, 10_000)) // without sessions, memory does not grow further
		}
		if _, err := load.Once(ctx, t, 64, 0, false); err != nil {
			return fmt.Errorf("using each session of %s once: %w", s.Name, err)
		}
		memory, err := machine.MemoryOf(s.PID())
		if err != nil {
			return err
		}
		heap, err := s.Heap(ctx, true)
		if err != nil {
			return err
		}
		fleet.Progress("%s: each of %d sessions was used once", s.Name, b.Sessions)
		if !s.LogsIn() {
			plain = figures.Size{Anonymous: memory.Anonymous, File: memory.File, Live: int64(heap.Live)}
			continue
		}
		b.report.Sizes = append(b.report.Sizes, figures.Size{
			Subject: s.Name, Sessions: b.Sessions, Started: s.Started, StoreBytes: b.StoreBytes[s.Name],
			Anonymous: memory.Anonymous - plain.Anonymous, File: memory.File - plain.File, Live: int64(heap.Live) - plain.Live,
		})
	}
	return nil
}

const warmUp = 150 * time.Millisecond

// measure measures a subject, and checks that every request reached the app with the right token. It
// first calls prepare, if not nil.
func (b *bench) measure(ctx context.Context, c figures.Cell, s *fleet.Subject, prepare func() error) (slot figures.Slot, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measuring %s, %v: %w", s.Name, c, err)
		}
	}()
	if prepare != nil {
		if err := prepare(); err != nil {
			return slot, err
		}
	}
	slot = figures.Slot{Cell: c, Subject: s.Name}
	requests, bearers := b.Counts()
	var heaps [3]fleet.Heap // the second reading shows the cost of the first
	for i := range 2 {
		if heaps[i], err = s.Heap(ctx, false); err != nil {
			return slot, err
		}
	}
	running, err := load.Start(ctx, s.Target(c.Size, c.HTTP2), c.Concurrency)
	if err != nil {
		return slot, err
	}
	wait(ctx, warmUp)
	slot.Others, err = machine.Others(b.known, func() error { return b.record(running, s, &slot) })
	result, loadErr := running.Stop()
	if loadErr != nil {
		return slot, loadErr
	}
	if err != nil {
		return slot, err
	}
	if heaps[2], err = s.Heap(ctx, false); err != nil {
		return slot, err
	}
	if err := b.checkCounts(s, result.Calls, requests, bearers); err != nil {
		return slot, err
	}
	each := func(figure func(fleet.Heap) float64) float64 {
		return (figure(heaps[2]) - 2*figure(heaps[1]) + figure(heaps[0])) / float64(result.Calls)
	}
	slot.Allocations = each(func(h fleet.Heap) float64 { return h.Objects })
	slot.AllocatedBytes = each(func(h fleet.Heap) float64 { return h.Bytes })
	slot.Requests, slot.Elapsed = len(result.Took), result.Elapsed
	slot.P50, slot.P99 = result.Quantile(0.50), result.Quantile(0.99)
	return slot, ctx.Err()
}

// record records a load for the time of a slot, with the CPU time of the subject and of Redis.
func (b *bench) record(running *load.Load, s *fleet.Subject, slot *figures.Slot) error {
	times := map[int]time.Duration{}
	for _, after := range []bool{false, true} {
		for _, pid := range []int{s.PID(), b.RedisPID()} {
			t, err := machine.ProcessCPU(pid)
			if err != nil {
				return err
			}
			times[pid] = t - times[pid]
		}
		if !after {
			b.TokenRequests() // drops earlier ones
			running.Record(b.slot())
			slot.Refreshes = b.TokenRequests().Calls
		}
	}
	slot.CPU, slot.RedisCPU = times[s.PID()], times[b.RedisPID()]
	return nil
}

// checkCounts returns an error unless the app got all requests, with tokens if the subject has sessions.
func (b *bench) checkCounts(s *fleet.Subject, sent int, requests, bearers int64) error {
	requestsNow, bearersNow := b.Counts()
	if got := int(requestsNow - requests); got != sent {
		return fmt.Errorf("the app got %d requests, want %d", got, sent)
	}
	want := 0
	if s.LogsIn() {
		want = sent
	}
	if got := int(bearersNow - bearers); got != want {
		return fmt.Errorf("the app got %d valid tokens, want %d", got, want)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
