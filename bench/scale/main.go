// Command scale measures very many sessions: memory, disk, the time to start, the waits during the
// sweep of expired sessions, and refreshes per second on a full store. docs/scale.md has the figures.
//
//	go run ./scale [-sessions 1000000] [-seconds 30] [-rounds 3] [-only bolt]
//	go run ./scale -compare [-sessions 50000] [-rounds 3]
//
// Each phase runs in a process of its own, so that it shows the memory of one store and can end like a
// crash. A million sessions take 12 GB in TMPDIR. With -compare it prints only rates and sizes of both
// stores in turns, as ratios. It starts a redis-server, which must be installed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// run measures one store.
type run struct {
	ctx                       context.Context
	dir, place, key           string
	secretsFile               string // with those of all sessions: they belong to browsers, not to the process
	sessions, seconds, rounds int
}

func main() {
	var r run
	phase := flag.String("phase", "", "one phase, in a child of the command")
	flag.StringVar(&r.secretsFile, "secrets", "", "file of the parent with the secrets of all sessions")
	flag.StringVar(&r.place, "place", "", "store of the parent")
	flag.StringVar(&r.key, "key", seal.NewKey().Encode(), "key of the parent")
	compare := flag.Bool("compare", false, "compare rates and sizes of both stores")
	only := flag.String("only", "", "measure one store: bolt or redis")
	flag.IntVar(&r.sessions, "sessions", 1_000_000, "sessions in each store")
	flag.IntVar(&r.seconds, "seconds", 30, "time for refreshes")
	flag.IntVar(&r.rounds, "rounds", 3, "rounds, of which the table shows the median")
	flag.Parse()
	var stop context.CancelFunc
	r.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	do := func() error { return r.measure(*only) }
	switch {
	case *phase != "":
		do = func() error { return phases[*phase](&worker{run: r}) }
	case *compare:
		do = r.compare
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (r run) measure(only string) (err error) {
	memory, _ := os.ReadFile("/proc/meminfo")
	total, _ := machine.Field(string(memory), "MemTotal:") // 0: unknown
	fmt.Printf("%d sessions; %s; %.0f GB of memory\n\n", r.sessions, machine.Describe(), total*1024/1e9)
	for _, store := range []struct {
		name string
		run  func(run) error
	}{{"bolt", run.bolt}, {"redis", run.redis}} {
		if only != "" && only != store.name {
			continue
		}
		if r.dir, err = os.MkdirTemp("", "scale-*"); err != nil {
			return err
		}
		defer os.RemoveAll(r.dir)
		r.secretsFile = filepath.Join(r.dir, "secrets")
		if err := store.run(r); err != nil {
			return fmt.Errorf("measuring %s: %w", store.name, err)
		}
	}
	return nil
}

// child runs a phase in a process and writes its output.
func (r run) child(phase string, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(r.ctx, self, "-phase", phase, "-secrets", r.secretsFile, "-place", r.place, "-key", r.key,
		"-sessions", strconv.Itoa(r.sessions), "-seconds", strconv.Itoa(r.seconds))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running phase %s: %w", phase, err)
	}
	return nil
}

func mb[N int64 | float64](bytes N) float64 { return float64(bytes) / 1e6 }

// compared is a store with its measurements.
type compared struct {
	*worker
	logins, bytes float64      // per second, per session
	rates         [3][]float64 // per second, by row and round
}

// rows are the rates that compare measures in rounds.
var rows = [3]string{"requests, 1,000 sessions in use", "requests, any session", "refreshes"}

const compareCallers = 64

// compare prints rates and sizes of both stores, measured in turns. Redis shares the machine, so only
// the ratios count.
func (r run) compare() error {
	dir, err := os.MkdirTemp("", "scale-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := process.StartRedis(r.ctx, dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	empty, err := stores.Size(server.URL())
	if err != nil {
		return err
	}
	bolt, redis := &compared{worker: &worker{run: r}}, &compared{worker: &worker{run: r}}
	bolt.place, bolt.secretsFile = filepath.Join(dir, "sessions.db"), filepath.Join(dir, "bolt.secrets")
	redis.place, redis.secretsFile = server.URL(), filepath.Join(dir, "redis.secrets")
	if err := errors.Join(bolt.fillEmpty(0), redis.fillEmpty(empty)); err != nil {
		return err
	}
	for range r.rounds {
		if err := errors.Join(bolt.round(), redis.round()); err != nil {
			return err
		}
	}
	fmt.Printf("| | bolt | redis | ratio | spread of the ratio |\n|---|---:|---:|---:|---:|\n")
	fmt.Printf("| logins/s | %.0f | %.0f | %.2f | |\n", bolt.logins, redis.logins, redis.logins/bolt.logins)
	for j, name := range rows {
		var ratios []float64
		for round, rate := range bolt.rates[j] {
			ratios = append(ratios, redis.rates[j][round]/rate)
		}
		ratio := figures.SpreadOf(ratios)
		fmt.Printf("| %s, /s | %.0f | %.0f | %.2f | %.2f–%.2f |\n", name,
			figures.SpreadOf(bolt.rates[j]).Median, figures.SpreadOf(redis.rates[j]).Median, ratio.Median, ratio.Low, ratio.High)
	}
	fmt.Printf("| bytes a session | %.0f | %.0f | %.2f | |\n", bolt.bytes, redis.bytes, redis.bytes/bolt.bytes)
	return errors.Join(bolt.Close(), redis.Close())
}

// fillEmpty fills a store with the size it had when it was empty.
func (c *compared) fillEmpty(empty int64) error {
	if err := c.open(); err != nil {
		return err
	}
	tenths, err := c.fill(compareCallers)
	if err != nil {
		return err
	}
	full, err := stores.Size(c.place)
	c.logins, c.bytes = figures.SpreadOf(tenths).Median, float64(full-empty)/float64(c.sessions)
	return err
}

func (c *compared) round() error {
	hot := func(int) error { return c.use(rand.IntN(min(1000, c.n))) }
	for j, m := range []struct {
		n    int
		call func(i int) error
	}{{200_000, hot}, {50_000, c.request}, {c.sessions / 5, c.refresh}} {
		r, err := load.Times(m.n, compareCallers, m.call)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", rows[j], err)
		}
		c.rates[j] = append(c.rates[j], r.Rate())
	}
	return nil
}
