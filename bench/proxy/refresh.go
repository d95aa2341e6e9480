package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

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
func (b *bench) refreshes(ctx context.Context, rounds, storms, sessions int) error {
	var subjects []*fleet.Subject
	for _, s := range b.Subjects {
		if s.LogsIn() && !s.IsPeer() {
			subjects = append(subjects, s)
		}
	}
	for _, s := range subjects {
		if rounds == 0 {
			break
		}
		if err := b.refreshing(ctx, s, rounds); err != nil {
			return err
		}
	}
	for round := range storms {
		for _, s := range subjects {
			if err := b.storm(ctx, s, sessions); err != nil {
				return fmt.Errorf("measuring a storm of %s: %w", s.Name, err)
			}
			fleet.Progress("%s, storm of refreshes: round %d of %d", s.Name, round+1, storms)
		}
	}
	return nil
}

// refreshing measures a subject with sessions whose tokens become due all the time, in turns with as
// many sessions whose tokens do not.
func (b *bench) refreshing(ctx context.Context, s *fleet.Subject, rounds int) (err error) {
	run := figures.Run{Baseline: s.Name}
	calm, due := *s, *s
	due.Name = s.Name + figures.Refreshing
	if calm.Cookies, err = b.Login(ctx, s, dueSessions); err != nil {
		return err
	}
	b.SetIssuers(dueLife, 0)
	defer b.SetIssuers(fleet.LongLife, 0)
	if due.Cookies, err = b.Login(ctx, s, dueSessions); err != nil {
		return err
	}
	b.SetIssuers(dueLife, issuerLatency)
	// All tokens are refreshed in the order of their sessions, so that afterwards they have any age that
	// tokens in use can have.
	var used time.Time
	stagger := func() error {
		wait(ctx, time.Until(used.Add(dueLife)))
		_, err := load.Once(ctx, due.Target(200, false), dueSessions, dueLife*85/100, false)
		used = time.Now().Add(warmUp + b.slot())
		return err
	}
	cell := figures.Cell{Sessions: dueSessions, Size: 200, Concurrency: 16}
	for round := range rounds {
		for i := range 2 {
			subject, prepare := &calm, (func() error)(nil)
			if (round+i)%2 == 1 {
				subject, prepare = &due, stagger
			}
			slot, err := b.measure(ctx, cell, subject, prepare)
			if err != nil {
				return err
			}
			slot.Round = round
			run.Slots = append(run.Slots, slot)
		}
		fleet.Progress("%s, tokens that become due: round %d of %d", s.Name, round+1, rounds)
	}
	b.report.Refreshing = append(b.report.Refreshing, run)
	return nil
}

// storm sends one request of each session after all tokens have expired, and one more while all tokens
// are valid: the second ones show the cost of that many requests alone.
func (b *bench) storm(ctx context.Context, s *fleet.Subject, sessions int) (err error) {
	storm := figures.Storm{Subject: s.Name, Sessions: sessions, Latency: issuerLatency}
	defer b.SetIssuers(fleet.LongLife, 0)
	b.SetIssuers(shortLife, 0)
	t := s.Target(200, false)
	if t.Cookies, err = b.Login(ctx, s, sessions); err != nil {
		return err
	}
	wait(ctx, shortLife)
	b.SetIssuers(fleet.LongLife, issuerLatency)
	b.TokenRequests() // drops earlier ones
	crowd := func(failed *int) (load.Result, error) {
		_, before := b.Counts()
		r, err := load.Once(ctx, t, sessions, stormTime, true)
		_, after := b.Counts()
		*failed = sessions - int(after-before)
		return r, err
	}
	var result load.Result
	storm.Others, err = machine.Others(b.known, func() (err error) {
		result, err = crowd(&storm.Failed)
		return err
	})
	if err != nil {
		return err
	}
	storm.P50, storm.P99, storm.Max = result.Quantile(0.50), result.Quantile(0.99), result.Quantile(1)
	refreshes := b.TokenRequests()
	storm.Refreshes, storm.IssuerP99 = refreshes.Calls, refreshes.Quantile(0.99)
	if result, err = crowd(&storm.Lost); err != nil {
		return err
	}
	storm.CrowdP99 = result.Quantile(0.99)
	b.report.Storms = append(b.report.Storms, storm)
	return nil
}

const (
	failingSessions = 2000 // of the failing site, due during the outage
	failingQuick    = 300
	failingRate     = 400 // requests of the failing site per second
	healthySessions = 100 // of the healthy site, refreshed within a second
)

// neighbour compares requests that need a refresh while the authorization server of another site is
// down to the same requests while it is up. It returns an error if such a request failed.
func neighbour(ctx context.Context, o options) error {
	exe, err := fleet.Build(ctx)
	if err != nil {
		return err
	}
	n, err := fleet.StartNeighbours(ctx, exe)
	if err != nil {
		return err
	}
	defer n.Close()
	sessions := failingSessions
	if o.quick {
		sessions = failingQuick
	}
	if n.Failing.Cookies, err = n.Login(ctx, n.Failing, sessions); err != nil {
		return err
	}
	up := &neighbourRun{Neighbours: n}
	if err := up.measure(ctx, "up", o.neighbour); err != nil {
		return err
	}
	n.SetIssuers(shortLife, 0)
	if n.Failing.Cookies, err = n.Login(ctx, n.Failing, sessions); err != nil {
		return err
	}
	if err := n.Outage(); err != nil {
		return err
	}
	down := &neighbourRun{Neighbours: n}
	if err := down.measure(ctx, "down", o.neighbour); err != nil {
		return err
	}
	up50, up99 := figures.SpreadOf(up.p50).Median, figures.SpreadOf(up.p99).Median
	down50, down99 := figures.SpreadOf(down.p50).Median, figures.SpreadOf(down.p99).Median
	fmt.Printf("| requests of a site that need a refresh | median | p99 |\n|---|---:|---:|\n"+
		"| the other site's server is up | %.3fms | %.3fms |\n| it is down, %d sessions due | %.3fms | %.3fms |\n"+
		"| difference | %.3fms | %.3fms |\n| ratio | × %.2f | × %.2f |\n",
		up50, up99, sessions, down50, down99, down50-up50, down99-up99, down50/up50, down99/up99)
	fmt.Printf("\nMedians of %d rounds of %d requests. Of the other site's requests, %d of %d were answered without its server, %d of %d with it.\n",
		o.neighbour, healthySessions, down.served.Load(), down.sent.Load(), up.served.Load(), up.sent.Load())
	return nil
}

// A neighbourRun is a measurement with the server of the failing site up or down.
type neighbourRun struct {
	*fleet.Neighbours
	p50, p99     []float64    // by round, in milliseconds
	sent, served atomic.Int64 // requests of the failing site
}

// measure sends one request of each healthy session, whose tokens have expired, within a second, while
// requests of the failing site continue.
func (r *neighbourRun) measure(ctx context.Context, name string, rounds int) (err error) {
	r.SetIssuers(shortLife, 0)
	if r.Healthy.Cookies, err = r.Login(ctx, r.Healthy, healthySessions); err != nil {
		return err
	}
	r.SetIssuers(shortLife, issuerLatency)
	ctx, cancel := context.WithCancel(ctx)
	var press sync.WaitGroup
	press.Go(func() { r.press(ctx) })
	defer press.Wait()
	defer cancel()
	for round := range rounds {
		wait(ctx, shortLife) // until the tokens have expired
		result, err := load.Once(ctx, r.Healthy.Target(200, false), healthySessions, stormTime, false)
		if err != nil {
			return fmt.Errorf("measuring the healthy site: %w", err)
		}
		millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		r.p50, r.p99 = append(r.p50, millis(result.Quantile(0.50))), append(r.p99, millis(result.Quantile(0.99)))
		fleet.Progress("the other site's server is %s: round %d of %d: %.0f ms", name, round+1, rounds, r.p50[round])
	}
	return nil
}

// press sends requests of the failing site at a steady rate. Any answer is accepted.
func (r *neighbourRun) press(ctx context.Context) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	t := r.Failing.Target(200, false)
	_, _ = load.Paced(failingRate, func() bool { return ctx.Err() != nil }, func(i int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.Addr+"/200", nil)
		if err != nil {
			return err
		}
		req.Host = t.Host
		req.Header = http.Header{"Cookie": {t.Cookies[i%len(t.Cookies)]}, "Sec-Fetch-Mode": {"cors"}}
		resp, err := client.Do(req)
		if err != nil {
			return err // the round is over
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		r.sent.Add(1)
		if resp.StatusCode == http.StatusOK {
			r.served.Add(1)
		}
		return nil
	})
}
