package main

import (
	"context"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
)

const (
	// issuerLatency is what a request for a token takes at least.
	issuerLatency = 50 * time.Millisecond
	longLife      = 12 * time.Hour
	// dueLife is the life of tokens that are refreshed all the time: that of one
	// in use becomes due after 70 to 85 % of it.
	dueLife = 4 * time.Second
	// dueSessions is how many sessions have such tokens. About 30 of them are
	// refreshed in a second, as of 15,000 sessions with tokens of ten minutes.
	dueSessions = 100
)

// refreshing measures a subject with sessions whose tokens become due all the
// time, in turns with as many whose tokens do not.
func (b *bench) refreshing(ctx context.Context, s *fleet.Subject, rounds int) (figures.Run, error) {
	run := figures.Run{Anchor: s.Name}
	calm, due := *s, *s
	due.Name = s.Name + figures.Refreshing
	var err error
	if calm.Cookies, err = b.Login(ctx, s, dueSessions); err != nil {
		return run, err
	}
	b.SetIssuer(dueLife, 0)
	defer b.SetIssuer(longLife, 0)
	if due.Cookies, err = b.Login(ctx, s, dueSessions); err != nil {
		return run, err
	}
	b.SetIssuer(dueLife, issuerLatency)
	cell := figures.Cell{Sessions: dueSessions, Size: 200, Concurrency: 16}
	// The tokens are made to be of every age that one in use can have: when all are
	// due, as they are asked for.
	var used time.Time
	stagger := func() error {
		rest(ctx, time.Until(used.Add(dueLife)))
		t := target(cell, &due)
		_, err := load.Once(ctx, t, len(t.Cookies), dueLife*85/100)
		used = time.Now().Add(warmUp + b.slot)
		return err
	}
	for round := range rounds {
		for i := range 2 {
			subject, prepare := &calm, (func() error)(nil)
			if (round+i)%2 == 1 {
				subject, prepare = &due, stagger
			}
			slot, err := b.measure(ctx, cell, subject, round, prepare)
			if err != nil {
				return run, err
			}
			run.Slots = append(run.Slots, slot)
		}
		progress(fmt.Sprintf("%s, tokens that become due: round %d of %d", s.Name, round+1, rounds))
	}
	return run, nil
}
