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

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
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
	check.Main(func() {
		switch {
		case *phase != "":
			phases[*phase](&worker{run: r})
		case *compare:
			r.compare()
		default:
			r.measure(*only)
		}
	})
}

func (r run) measure(only string) {
	memory, _ := os.ReadFile("/proc/meminfo")
	fmt.Printf("%d sessions; %s; %.0f GB of memory\n\n", r.sessions, machine.Describe(), machine.Field(string(memory), "MemTotal:")*1024/1e9)
	if only != "redis" {
		r.withDir(run.bolt)
	}
	if only != "bolt" {
		r.withDir(run.redis)
	}
}

// withDir measures a store in a temporary directory.
func (r run) withDir(store func(run)) {
	r.dir = check.Value(os.MkdirTemp("", "scale-*"))
	defer os.RemoveAll(r.dir)
	r.secretsFile = filepath.Join(r.dir, "secrets")
	store(r)
}

// child runs a phase in a process and writes its output.
func (r run) child(phase string, out io.Writer) {
	defer check.Doing("running phase %s", phase)
	cmd := exec.CommandContext(r.ctx, check.Value(os.Executable()), "-phase", phase, "-secrets", r.secretsFile, "-place", r.place, "-key", r.key,
		"-sessions", strconv.Itoa(r.sessions), "-seconds", strconv.Itoa(r.seconds))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	check.OK(cmd.Run())
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
func (r run) compare() {
	dir := check.Value(os.MkdirTemp("", "scale-*"))
	defer os.RemoveAll(dir)
	server := process.StartRedis(r.ctx, dir)
	defer server.Stop()
	bolt, redis := &compared{worker: &worker{run: r}}, &compared{worker: &worker{run: r}}
	bolt.place, bolt.secretsFile = filepath.Join(dir, "sessions.db"), filepath.Join(dir, "bolt.secrets")
	redis.place, redis.secretsFile = server.URL(), filepath.Join(dir, "redis.secrets")
	empty := stores.Size(redis.place)
	bolt.fillEmpty(0)
	redis.fillEmpty(empty)
	for range r.rounds {
		bolt.round()
		redis.round()
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
	bolt.Close()
	redis.Close()
}

// fillEmpty fills a store with the size it had when it was empty.
func (c *compared) fillEmpty(empty int64) {
	c.open()
	c.logins = figures.SpreadOf(c.fill(compareCallers)).Median
	c.bytes = float64(stores.Size(c.place)-empty) / float64(c.sessions)
}

func (c *compared) round() {
	for j, r := range []load.Result{
		load.Times(200_000, compareCallers, func(int) { c.use(rand.IntN(min(1000, c.n))) }),
		load.Times(50_000, compareCallers, c.request),
		load.Times(c.sessions/5, compareCallers, c.refresh),
	} {
		c.rates[j] = append(c.rates[j], r.Rate())
	}
}
