package main

import (
	"context"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// listCalls is the number of calls in each row but those of the whole list.
const listCalls = 200

// robotSessions is the number of sessions of a robot that logs in for each of its requests.
const robotSessions = 1000

// listPhase measures what an operator does: pages of the list, the sessions of a user, their end, and
// the whole list. One caller does one thing after the other.
func (w *worker) listPhase() {
	sites, begin := keeper.Sites{w.Keeper}, memory().Anonymous
	page := func(limit int) []keeper.Listed {
		found, _, err := sites.List(context.Background(), session.ID(seal.NewSecret()), limit)
		check.OK(err)
		return found
	}
	var users []string
	for len(users) < listCalls {
		for _, l := range page(10) {
			users = append(users, l.Label.Subject)
		}
	}
	row := func(name string, do func() load.Result) {
		stop := watchMemory()
		r := do()
		fmt.Printf("| %s | %.2f | %.1f | %.1f | %.0f |\n", name, millis(r, 0.5), millis(r, 0.99), millis(r, 1), mb(stop()-begin))
	}
	fmt.Printf("| of %d sessions | median ms | p99 ms | longest ms | most memory + MB |\n|---|---:|---:|---:|---:|\n", w.n)
	row("a page of 100 sessions, anywhere in the list", func() load.Result { return load.Times(listCalls, 1, func(int) { page(100) }) })
	row("a page of 1,000 sessions, anywhere in the list", func() load.Result { return load.Times(listCalls/10, 1, func(int) { page(1000) }) })
	row("finding a user", func() load.Result {
		return load.Times(listCalls, 1, func(i int) {
			found, _, err := sites.ListUser(context.Background(), users[i], session.ID{}, 100)
			check.OK(err)
			if len(found) != 1 {
				check.Failf("got %d sessions of a user, want 1", len(found))
			}
		})
	})
	// The sessions that end are not those of the file of secrets, which later phases use.
	end := func(user string, want int) {
		if n := check.Value(sites.EndUser(context.Background(), user)); n != want {
			check.Failf("got %d ended sessions, want %d", n, want)
		}
	}
	for i := range listCalls {
		w.LoginAs(fmt.Sprint("person ", i))
	}
	row("ending a user", func() load.Result {
		return load.Times(listCalls, 1, func(i int) { end(fmt.Sprint("person ", i), 1) })
	})
	load.Times(robotSessions, stores.Callers, func(int) { w.LoginAs("robot") })
	row(fmt.Sprintf("ending a user with %d sessions", robotSessions), func() load.Result {
		return load.Times(1, 1, func(int) { end("robot", robotSessions) })
	})
	row("counting all sessions", func() load.Result {
		return load.Times(1, 1, func(int) { check.Value(sites.Count(context.Background())) })
	})
	fmt.Println()
}
