package main

import (
	"context"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
)

// shortLife is the life of tokens that have expired when the storm begins. Those
// that it brings live long: a token that is old when it comes, for the machine is
// slow, must not be refreshed once more.
const shortLife = 2 * time.Second

// stormTime is the time within which the requests of a storm come.
const stormTime = time.Second

// stormSessions is how many sessions expire at once.
const stormSessions = 1000

// storm asks, within a second, for many sessions whose tokens have all expired. Every
// answer has to be the app's, unless they are a peer's.
func (b *bench) storm(ctx context.Context, s *fleet.Subject, sessions int) (figures.Storm, error) {
	defer b.SetIssuer(longLife, 0)
	b.SetIssuer(shortLife, 0)
	crowd := *s
	var err error
	if crowd.Cookies, err = b.Login(ctx, s, sessions); err != nil {
		return figures.Storm{}, err
	}
	rest(ctx, shortLife)
	if _, err := b.watch.AwaitQuiet(ctx, figures.RepeatAbove, time.Second); err != nil {
		return figures.Storm{}, err
	}
	b.SetIssuer(longLife, issuerLatency)
	storm, err := b.strike(ctx, s, target(figures.Cell{Size: 200}, &crowd))
	if err != nil {
		return storm, fmt.Errorf("%s, storm of refreshes: %w", s.Name, err)
	}
	return storm, nil
}

// strike asks for all sessions, whose tokens have expired, and then again while
// all tokens are good, to tell what of it the crowd alone is.
func (b *bench) strike(ctx context.Context, s *fleet.Subject, t load.Target) (figures.Storm, error) {
	storm := figures.Storm{Subject: s.Name, Sessions: len(t.Cookies), Latency: issuerLatency}
	b.IssuerTook() // forgets what was before
	var result load.Result
	var err error
	storm.Strangers, err = b.watch.Strangers(func() (err error) {
		result, storm.Failed, err = b.crowd(ctx, s, t)
		return err
	})
	if err != nil {
		return storm, err
	}
	storm.P50, storm.P99, storm.Max = result.Quantile(0.50), result.Quantile(0.99), result.Quantile(1)
	issuer := load.Result{Took: b.IssuerTook()}
	storm.Refreshes = len(issuer.Took)
	if storm.Refreshes != len(t.Cookies) && !s.IsPeer() {
		return storm, fmt.Errorf("%d tokens were refreshed for %d sessions", storm.Refreshes, len(t.Cookies))
	}
	if storm.Refreshes > 0 {
		storm.IssuerP99 = issuer.Quantile(0.99)
	}
	if result, storm.Lost, err = b.crowd(ctx, s, t); err != nil {
		return storm, err
	}
	if !s.IsPeer() { // which refreshes again what has become old meanwhile
		storm.CrowdP99 = result.Quantile(0.99)
	}
	return storm, nil
}

// crowd asks once with each cookie, and counts the requests that did not reach the
// app with a good token. It takes that for an error, but from a peer.
func (b *bench) crowd(ctx context.Context, s *fleet.Subject, t load.Target) (r load.Result, failed int, err error) {
	requests, bearers := b.Counts()
	if s.IsPeer() {
		r, err = load.Try(ctx, t, stormTime)
		_, now := b.Counts()
		return r, len(t.Cookies) - int(now-bearers), err
	}
	if r, err = load.Once(ctx, t, len(t.Cookies), stormTime); err != nil {
		return r, 0, err
	}
	return r, 0, b.complete(s, r.All, requests, bearers)
}
