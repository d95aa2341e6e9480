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
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "bench-caddy-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe, err := fleet.Build(ctx, dir)
	if err != nil {
		return err
	}
	report := figures.Report{
		Run: figures.Run{Anchor: fleet.Plain}, Twin: fleet.PlainAgain, Header: fleet.PlainHeader,
		Gate: plan(o.sessions[0], o.rounds, true)[0].Cell, GateRounds: o.rounds / o.laps(o.sessions[0]) * o.laps(o.sessions[0]),
		Machine: machine.Describe(),
	}
	peers, missing, err := fleet.FindPeers(ctx)
	if err != nil {
		return err
	}
	report.Notes = append(report.Notes, notes(peers, missing, fleet.HasRedis())...)
	if !fleet.HasRedis() {
		peers = nil
	}
	for _, p := range peers {
		report.Peers = append(report.Peers, p.Name)
	}
	if runtime.NumCPU() < 2 {
		report.Notes = append(report.Notes, "Everything shared one CPU: throughput and latency are those of load and proxy together.")
	}
	patience := o.patience()
	for _, sessions := range o.sessions {
		for lap := range o.laps(sessions) {
			if err := stage(ctx, o, exe, peers, sessions, lap, &patience, &report); err != nil {
				return fmt.Errorf("with %d sessions: %w", sessions, err)
			}
		}
	}
	if o.refreshesOnly() {
		fmt.Print(report.RefreshTable(), report.StormTable())
		return nil
	}
	return report.Write(o.out, o.force)
}

// notes tell what was measured besides the module, and what is not installed.
func notes(peers []fleet.Peer, missing []string, redis bool) []string {
	var notes []string
	if !redis {
		notes = append(notes, "Redis was not measured, nor other login proxies with it: redis-server is not installed.")
		return notes
	}
	for _, p := range peers {
		notes = append(notes, fmt.Sprintf("%s is %s. It keeps its sessions in Redis, and takes part with up to %d of them.", p.Name, p.Version, fleet.RealLogins))
	}
	for _, name := range missing {
		notes = append(notes, fmt.Sprintf("%s was not measured: it is not installed (make bench-peers).", name))
	}
	return notes
}

// stage measures with a number of sessions, for one lap.
func stage(ctx context.Context, o options, exe string, peers []fleet.Peer, sessions, lap int, patience *time.Duration, report *figures.Report) error {
	refreshes := o.refreshesOnly() || !o.gateOnly && sessions == o.sessions[0] && lap == 0
	setup := fleet.Options{Exe: exe, Sessions: sessions, Redis: fleet.HasRedis(), Peers: peers, Progress: progress}
	if refreshes {
		setup.StormLife = shortLife
	}
	f, err := fleet.Start(ctx, setup)
	if err != nil {
		return err
	}
	defer f.Close()
	watch, unpin, err := settle(f)
	if err != nil {
		return err
	}
	defer unpin()
	b := &bench{Fleet: f, watch: watch, slot: o.slot(), patience: patience}
	if o.refreshesOnly() {
		return b.refreshes(ctx, o.due, o.storms, stormSessions, report)
	}
	if !o.gateOnly && lap == 0 {
		sizes, err := b.sizes(ctx)
		if err != nil {
			return err
		}
		report.Sizes = append(report.Sizes, sizes...)
	}
	for _, s := range f.Subjects {
		rand.Shuffle(len(s.Cookies), func(i, j int) { s.Cookies[i], s.Cookies[j] = s.Cookies[j], s.Cookies[i] })
		s.Cookies = s.Cookies[:min(len(s.Cookies), o.active)]
	}
	for _, p := range plan(sessions, o.rounds/o.laps(sessions), o.gateOnly) {
		slots, err := b.cell(ctx, p, lap)
		if err != nil {
			return err
		}
		report.Slots = append(report.Slots, slots...)
	}
	switch {
	case !refreshes:
		return nil
	case o.quick:
		return b.refreshes(ctx, 1, 1, 200, report)
	}
	return b.refreshes(ctx, max(o.rounds/2, 1), 3, stormSessions, report)
}

// progress goes where the table does not.
func progress(what string) { fmt.Fprintln(os.Stderr, what) }

// cell measures the subjects in turns. Each round begins with another one. The
// rounds are numbered through all laps.
func (b *bench) cell(ctx context.Context, p planned, lap int) ([]figures.Slot, error) {
	var slots []figures.Slot
	subjects := slices.Clone(b.Subjects)
	if !p.peers {
		subjects = slices.DeleteFunc(subjects, (*fleet.Subject).IsPeer)
	}
	for round := range p.rounds {
		for i := range subjects {
			s := subjects[(round+i)%len(subjects)]
			slot, err := b.measure(ctx, p.Cell, s, lap*p.rounds+round, nil)
			if err != nil {
				return nil, err
			}
			slots = append(slots, slot)
		}
		progress(fmt.Sprintf("%s: lap %d, round %d of %d", p.Cell, lap+1, round+1, p.rounds))
	}
	return slots, nil
}

// refreshes measures what becomes of requests while tokens are refreshed: some at
// a time, in rounds, and those of a crowd in one second.
func (b *bench) refreshes(ctx context.Context, rounds, storms, crowd int, report *figures.Report) error {
	for _, s := range b.Subjects {
		if !s.LogsIn() || s.IsPeer() || rounds == 0 {
			continue
		}
		run, err := b.refreshing(ctx, s, rounds)
		if err != nil {
			return err
		}
		report.Refreshing = append(report.Refreshing, run)
	}
	return b.stormsOf(ctx, storms, crowd, report)
}

// stormsOf brings storms over each store and each peer, in turns. What becomes of a
// peer is told, and ends nothing.
func (b *bench) stormsOf(ctx context.Context, storms, sessions int, report *figures.Report) error {
	for round := range storms {
		for _, s := range b.Stormed() {
			hit, err := b.storm(ctx, s, sessions)
			if err != nil && s.IsPeer() && ctx.Err() == nil {
				note := fmt.Sprintf("A storm was not measured: %v", err)
				report.Notes = append(report.Notes, note)
				progress(note)
				continue
			}
			if err != nil {
				return err
			}
			report.Storms = append(report.Storms, hit)
			progress(fmt.Sprintf("%s, storm of refreshes: round %d of %d", s.Name, round+1, storms))
		}
	}
	return nil
}

// settle binds the subjects to one CPU and everything else to another, if there
// are two. The function that it returns lets this process go again.
func settle(f *fleet.Fleet) (machine.Watch, func(), error) {
	none := func() {}
	cpus, err := machine.CPUs()
	if err != nil {
		return machine.Watch{}, none, err
	}
	first, second := cpus[0], cpus[0]
	if len(cpus) > 1 {
		second = cpus[1]
	}
	for _, pid := range f.PIDs() {
		if err := machine.Pin(pid, machine.Favoured, first); err != nil {
			return machine.Watch{}, none, err
		}
	}
	if pid := f.RedisPID(); pid != 0 {
		if err := machine.Pin(pid, machine.Favoured, second); err != nil {
			return machine.Watch{}, none, err
		}
	}
	if err := machine.Pin(os.Getpid(), machine.Favoured, second); err != nil {
		return machine.Watch{}, none, err
	}
	threads := runtime.GOMAXPROCS(1)
	return newWatch(f, first, second), func() {
		runtime.GOMAXPROCS(threads)
		_ = machine.Pin(os.Getpid(), machine.Normal, cpus...) // what follows is slower, if that fails
	}, nil
}
