package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
)

const (
	// ailing is how many sessions of the first site are due while its
	// authorization server is down, and ailingRate how many requests they send in
	// a second.
	ailing      = 2000
	ailingRate  = 400
	ailingQuick = 300
	// neighbours is how many sessions of the second site are refreshed in a second.
	neighbours = 100
)

// neighbour measures how long requests of a site take that need a refresh, while
// the authorization server of another site of the same Caddy is down, against the
// same while it is well. It prints medians, and returns an error if a request of
// the site failed.
func neighbour(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "bench-caddy-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	exe, err := fleet.Build(ctx, dir)
	if err != nil {
		return err
	}
	sessions := ailing
	if o.quick {
		sessions = ailingQuick
	}
	var runs [2]*neighbourRun // without and with the outage
	for i := range runs {
		if runs[i], err = startNeighbour(ctx, exe, sessions, i == 1); err != nil {
			return err
		}
		defer runs[i].Close()
	}
	for round := range o.neighbour {
		for i := range runs { // in turns, each first in half of the rounds
			if err := runs[(round+i)%2].measure(ctx); err != nil {
				return err
			}
		}
		progress(fmt.Sprintf("neighbour of a site whose server is down: round %d of %d: %v without, %v with", round+1, o.neighbour,
			runs[0].p50[round].Round(time.Millisecond), runs[1].p50[round].Round(time.Millisecond)))
	}
	well, down := runs[0].medians(), runs[1].medians()
	fmt.Printf("| requests of a site that need a refresh | median | p99 |\n|---|---:|---:|\n"+
		"| the other site's server is well | %v | %v |\n| it is down, %d sessions due | %v | %v |\n"+
		"| difference | %v | %v |\n| ratio | × %.2f | × %.2f |\n",
		well[0], well[1], sessions, down[0], down[1], down[0]-well[0], down[1]-well[1],
		float64(down[0])/float64(well[0]), float64(down[1])/float64(well[1]))
	fmt.Printf("\nMedians of %d rounds of %d requests. Of the other site's requests, %d of %d were answered without its server, %d of %d with it.\n",
		o.neighbour, neighbours, runs[1].served.Load(), runs[1].asked.Load(), runs[0].served.Load(), runs[0].asked.Load())
	return nil
}

// A neighbourRun is one Caddy with its two sites.
type neighbourRun struct {
	*fleet.Neighbours
	sessions, ailing []string // cookies of the second and the first site
	used             time.Time
	p50, p99         []time.Duration
	asked, served    atomic.Int64 // requests of the first site, and those that reached the app
}

func startNeighbour(ctx context.Context, exe string, sessions int, outage bool) (_ *neighbourRun, err error) {
	n, err := fleet.StartNeighbours(ctx, exe)
	if err != nil {
		return nil, err
	}
	r := &neighbourRun{Neighbours: n}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if !outage {
		n.SetIssuers(longLife, 0)
	} else {
		n.SetIssuers(shortLife, 0)
	}
	if r.ailing, err = n.Login(ctx, n.First, sessions); err != nil {
		return nil, err
	}
	n.SetIssuers(shortLife, 0)
	if r.sessions, err = n.Login(ctx, n.Second, neighbours); err != nil {
		return nil, err
	}
	n.SetIssuers(shortLife, issuerLatency)
	r.used = time.Now()
	if outage {
		return r, n.Outage()
	}
	return r, nil
}

// measure asks once for each session of the second site, whose tokens have
// expired, within a second, while those of the first keep coming.
func (r *neighbourRun) measure(ctx context.Context) error {
	rest(ctx, time.Until(r.used.Add(shortLife)))
	busy, stop := context.WithCancel(ctx)
	var pressing sync.WaitGroup
	pressing.Go(func() { r.press(busy) })
	defer pressing.Wait()
	defer stop()
	rest(ctx, time.Second) // those that are to find out that the server is down do so
	s := *r.Second
	s.Cookies = r.sessions
	result, err := load.Once(ctx, target(figures.Cell{Size: 200}, &s), len(r.sessions), stormTime)
	if err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	r.used = time.Now()
	r.p50, r.p99 = append(r.p50, result.Quantile(0.50)), append(r.p99, result.Quantile(0.99))
	return nil
}

// press sends requests of the first site at a steady rate, whatever the answers are.
func (r *neighbourRun) press(ctx context.Context) {
	_, port, _ := net.SplitHostPort(r.First.Host)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(time.Second / ailingRate)
	defer tick.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		asking.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/200", nil)
			if err != nil {
				return
			}
			req.Host = r.First.Host
			req.Header = http.Header{"Cookie": {r.ailing[i%len(r.ailing)]}, "Sec-Fetch-Mode": {"cors"}}
			resp, err := client.Do(req)
			if err != nil {
				return // the round is over
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			r.asked.Add(1)
			if resp.StatusCode == http.StatusOK {
				r.served.Add(1)
			}
		})
	}
}

// medians are those of the medians and of the 99th percentiles.
func (r *neighbourRun) medians() [2]time.Duration {
	slices.Sort(r.p50)
	slices.Sort(r.p99)
	return [2]time.Duration{r.p50[len(r.p50)/2].Round(time.Microsecond), r.p99[len(r.p99)/2].Round(time.Microsecond)}
}
