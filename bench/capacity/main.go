// Command capacity measures what one instance can do with its sessions in a file
// (bolt) and in Redis: logins, requests and refreshes a second, and bytes for
// each session. Both are measured in turns in one run, on one machine that
// Redis shares; what counts is the ratio between them.
//
//	go run ./capacity [-sessions 50000] [-rounds 3]
//
// It starts a redis-server of its own, which has to be installed.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const callers = 64

func main() {
	sessions := flag.Int("sessions", 50_000, "sessions in each store")
	rounds := flag.Int("rounds", 3, "rounds of which the median counts")
	flag.Parse()
	if err := run(*sessions, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(sessions, rounds int) error {
	dir, err := os.MkdirTemp("", "capacity-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	inFile, err := openBolt(filepath.Join(dir, "sessions.db"))
	if err != nil {
		return err
	}
	defer inFile.close()
	inRedis, err := openRedis(dir)
	if err != nil {
		return err
	}
	defer inRedis.close()

	both := []*subject{newSubject(inFile), newSubject(inRedis)}
	for _, s := range both {
		if err := s.login(sessions); err != nil {
			return err
		}
	}
	for range rounds {
		for _, s := range both {
			if err := s.round(); err != nil {
				return err
			}
		}
	}
	return report(both[0], both[1], sessions)
}

// subject is a store under measurement, and what was measured.
type subject struct {
	opened
	keeper  *keeper.Keeper
	secrets []seal.Secret
	next    atomic.Int64 // of the sessions that have not been refreshed yet

	logins  float64
	samples map[string][]float64
}

func newSubject(o opened) *subject {
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		panic(err) // one key makes a ring
	}
	vault := keeper.NewVault(o.store)
	keeper, err := keeper.New(keeper.Config{
		Vault: vault, Site: seal.NewSite(ring, "https://login.example.com", "app", ""), Refresher: atOnce{},
	})
	if err != nil {
		panic(err) // nothing is missing
	}
	return &subject{opened: o, samples: map[string][]float64{}, keeper: keeper}
}

// atOnce is an authorization server that takes no time.
type atOnce struct{}

func (atOnce) Refresh(_ context.Context, _ string, confirm func() error) keeper.Answer {
	if err := confirm(); err != nil {
		return keeper.Answer{Outcome: keeper.Unavailable, Err: err}
	}
	return keeper.Answer{Tokens: tokens()}
}

func (atOnce) Identify(_ context.Context, who keeper.Identity, _ keeper.Tokens) (keeper.Identity, error) {
	return who, nil
}

func (atOnce) Discard(context.Context, keeper.Tokens) {}

// tokens are as large as those of a common OpenID provider.
func tokens() keeper.Tokens {
	now := time.Now()
	return keeper.Tokens{
		AccessToken: text(1200), RefreshToken: text(200), Obtained: now, Expires: now.Add(time.Hour),
	}
}

// text does not compress better than a token would.
func text(n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%016x", rand.Uint64())
	}
	return b.String()[:n]
}

func (s *subject) login(n int) error {
	s.secrets = make([]seal.Secret, n)
	idToken := text(1000)
	var err error
	s.logins, err = rate(n, func(i int) error {
		t := tokens()
		t.IDToken = idToken
		secret, _, err := s.keeper.Create(context.Background(), keeper.Identity{
			Subject: fmt.Sprintf("user-%d", i), Claims: []byte(`{"email":"` + text(200) + `"}`),
		}, t)
		s.secrets[i] = secret
		return err
	})
	return err
}

// round measures everything once.
func (s *subject) round() error {
	hot, cold, refreshes := 200_000, 50_000, len(s.secrets)/5
	for _, m := range []struct {
		name string
		n    int
		do   func(i int) error
	}{
		{"requests, 1,000 sessions in use", hot, func(i int) error { return s.request(i % min(1000, len(s.secrets))) }},
		{"requests, any session", cold, func(int) error { return s.request(rand.IntN(len(s.secrets))) }},
		{"refreshes", refreshes, func(int) error {
			i := int(s.next.Add(1)-1) % len(s.secrets)
			_, err := s.keeper.FreshSince(context.Background(), s.secrets[i], time.Now())
			return err
		}},
	} {
		r, err := rate(m.n, m.do)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", s.name, m.name, err)
		}
		s.samples[m.name] = append(s.samples[m.name], r)
	}
	return nil
}

func (s *subject) request(i int) error {
	_, err := s.keeper.Fresh(context.Background(), s.secrets[i])
	return err
}

// rate calls f n times from many callers and returns calls a second.
func rate(n int, f func(i int) error) (float64, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	begun := time.Now()
	for range callers {
		all.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

func report(bolt, redis *subject, sessions int) error {
	sizeBolt, err := bolt.bytes()
	if err != nil {
		return err
	}
	sizeRedis, err := redis.bytes()
	if err != nil {
		return err
	}
	fmt.Printf("| | bolt | redis | ratio | spread of the ratio |\n|---|---:|---:|---:|---:|\n")
	fmt.Printf("| logins/s | %.0f | %.0f | %.2f | |\n", bolt.logins, redis.logins, redis.logins/bolt.logins)
	for _, name := range []string{"requests, 1,000 sessions in use", "requests, any session", "refreshes"} {
		var ratios []float64
		for i, b := range bolt.samples[name] {
			ratios = append(ratios, redis.samples[name][i]/b)
		}
		slices.Sort(ratios)
		fmt.Printf("| %s, /s | %.0f | %.0f | %.2f | %.2f–%.2f |\n", name, median(bolt.samples[name]), median(redis.samples[name]), median(ratios), ratios[0], ratios[len(ratios)-1])
	}
	b, r := float64(sizeBolt)/float64(sessions), float64(sizeRedis)/float64(sessions)
	fmt.Printf("| bytes a session | %.0f | %.0f | %.2f | |\n", b, r, r/b)
	return nil
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}
