package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

const (
	// issuerLatency is the minimal time of a token request.
	issuerLatency = 50 * time.Millisecond
	// dueLife is the life of tokens that are refreshed all the time: a token in use becomes due after 70
	// to 85 % of its life.
	dueLife = 4 * time.Second
	// dueSessions have such tokens. They cause about 30 refreshes per second, as 15,000 sessions with
	// tokens of ten minutes would.
	dueSessions = 100
	// shortLife is the life of tokens that expire before a storm. Tokens issued during a storm have a long
	// life, because a slow machine must not let them expire again.
	shortLife     = 2 * time.Second
	stormTime     = time.Second // within which the requests of a storm arrive
	stormSessions = 1000
)

// refreshes measures requests while tokens are refreshed: some at a time, in rounds, and those of many
// sessions within one second. A peer refreshes by the age of a session, so it does not take part.
func (b *bench) refreshes(ctx context.Context, rounds, storms, sessions int) {
	subjects := slices.DeleteFunc(slices.Clone(b.Subjects), func(s *fleet.Subject) bool { return !s.LogsIn() || s.IsPeer() })
	for _, s := range subjects {
		if rounds > 0 {
			b.refreshing(ctx, s, rounds)
		}
	}
	for round := range storms {
		for _, s := range subjects {
			b.storm(ctx, s, sessions)
			fleet.Progress("%s, storm of refreshes: round %d of %d", s.Name, round+1, storms)
		}
	}
}

// refreshing measures a subject with sessions whose tokens become due all the time, in turns with as
// many sessions whose tokens do not.
func (b *bench) refreshing(ctx context.Context, s *fleet.Subject, rounds int) {
	run := figures.Run{Baseline: s.Name}
	calm, due := *s, *s
	due.Name = s.Name + figures.Refreshing
	calm.Cookies = b.Login(ctx, s, dueSessions)
	b.SetIssuers(dueLife, 0)
	defer b.SetIssuers(fleet.LongLife, 0)
	due.Cookies = b.Login(ctx, s, dueSessions)
	b.SetIssuers(dueLife, issuerLatency)
	var used time.Time
	for round := range rounds {
		for i := range 2 {
			subject := &calm
			if (round+i)%2 == 1 {
				// All tokens are refreshed in the order of their sessions, so that afterwards they have any
				// age that tokens in use can have.
				subject = &due
				time.Sleep(time.Until(used.Add(dueLife)))
				load.Once(ctx, due.Target(200, false), dueSessions, dueLife*85/100, false)
				used = time.Now().Add(warmUp + b.slot)
			}
			slot := b.measure(ctx, figures.Cell{Sessions: dueSessions, Size: 200, Concurrency: 16}, subject)
			slot.Round = round
			run.Slots = append(run.Slots, slot)
		}
		fleet.Progress("%s, tokens that become due: round %d of %d", s.Name, round+1, rounds)
	}
	b.report.Refreshing = append(b.report.Refreshing, run)
}

// storm sends one request of each session after all tokens have expired, and one more while all tokens
// are valid: the second ones show the cost of that many requests alone.
func (b *bench) storm(ctx context.Context, s *fleet.Subject, sessions int) {
	defer check.Doing("measuring a storm of %s", s.Name)
	storm := figures.Storm{Subject: s.Name, Sessions: sessions, Latency: issuerLatency}
	defer b.SetIssuers(fleet.LongLife, 0)
	b.SetIssuers(shortLife, 0)
	t := s.Target(200, false)
	t.Cookies = b.Login(ctx, s, sessions)
	time.Sleep(shortLife)
	b.SetIssuers(fleet.LongLife, issuerLatency)
	b.TokenRequests() // drops earlier ones
	crowd := func() (r load.Result, failed int) {
		_, before := b.Counts()
		r = load.Once(ctx, t, sessions, stormTime, true)
		_, after := b.Counts()
		return r, max(sessions-int(after-before), r.Failed)
	}
	var result load.Result
	storm.Others = machine.Others(b.known, func() { result, storm.Failed = crowd() })
	storm.P50, storm.P99, storm.Max = result.Quantile(0.50), result.Quantile(0.99), result.Quantile(1)
	refreshes := b.TokenRequests()
	storm.Refreshes, storm.IssuerP99 = refreshes.Calls, refreshes.Quantile(0.99)
	result, storm.Lost = crowd()
	storm.CrowdP99 = result.Quantile(0.99)
	b.report.Storms = append(b.report.Storms, storm)
}

const (
	failingSessions = 2000 // of the failing site, due during the outage
	failingRate     = 400  // requests of the failing site per second
	healthySessions = 100  // of the healthy site, refreshed within a second
)

// neighbour compares requests that need a refresh while the authorization server of another site is
// down to the same requests while it is up. It returns an error if such a request failed.
func neighbour(ctx context.Context, o options) {
	var p50, p99 [2]float64 // with the server up, and down
	var sent, served [2]int
	fleet.WithNeighbours(ctx, fleet.Build(ctx), func(f *fleet.Fleet, failing, healthy *fleet.Subject) {
		for i, life := range []time.Duration{fleet.LongLife, shortLife} {
			f.SetIssuers(life, 0)
			failing.Cookies = f.Login(ctx, failing, failingSessions)
			if i == 1 {
				failing.Outage()
			}
			var measured atomic.Bool
			var press sync.WaitGroup
			var failed error
			press.Go(func() {
				failed = check.Run(func() {
					for !measured.Load() {
						r := load.Once(ctx, failing.Target(200, false), failingSessions, failingSessions*time.Second/failingRate, true)
						sent[i], served[i] = sent[i]+r.Calls, served[i]+r.Calls-r.Failed
					}
				})
			})
			b := &bench{Fleet: f}
			for round := range o.neighbour {
				b.storm(ctx, healthy, healthySessions)
				fleet.Progress("neighbour: part %d of 2, round %d of %d", i+1, round+1, o.neighbour)
			}
			measured.Store(true)
			press.Wait()
			check.OK(failed)
			var medians, slow []float64
			for _, s := range b.report.Storms {
				if s.Failed > 0 {
					check.Failf("%d of %d requests of the healthy site failed", s.Failed, s.Sessions)
				}
				medians, slow = append(medians, s.P50.Seconds()*1000), append(slow, s.P99.Seconds()*1000)
			}
			p50[i], p99[i] = figures.SpreadOf(medians).Median, figures.SpreadOf(slow).Median
		}
	})
	fmt.Printf("| requests of a site that need a refresh | median | p99 |\n|---|---:|---:|\n"+
		"| the other site's server is up | %.3fms | %.3fms |\n| it is down, %d sessions due | %.3fms | %.3fms |\n"+
		"| difference | %.3fms | %.3fms |\n| ratio | × %.2f | × %.2f |\n",
		p50[0], p99[0], failingSessions, p50[1], p99[1], p50[1]-p50[0], p99[1]-p99[0], p50[1]/p50[0], p99[1]/p99[0])
	fmt.Printf("\nMedians of %d rounds of %d requests. Of the other site's requests, %d of %d were answered without its server, %d of %d with it.\n",
		o.neighbour, healthySessions, served[1], sent[1], served[0], sent[0])
}
