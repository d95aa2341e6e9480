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

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
	"github.com/oauth-session/caddy-oauth-session/session"
)

// run measures one store.
type run struct {
	ctx                       context.Context
	dir, place, key           string
	sessions, seconds, rounds int
}

func main() {
	var r run
	phase := flag.String("phase", "", "one phase, in a child of the command")
	flag.StringVar(&r.dir, "dir", "", "directory of the parent")
	flag.StringVar(&r.place, "place", "", "store of the parent")
	flag.StringVar(&r.key, "key", session.NewKey().Encode(), "key of the parent")
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
	cmd := exec.CommandContext(r.ctx, self, "-phase", phase, "-dir", r.dir, "-place", r.place, "-key", r.key,
		"-sessions", strconv.Itoa(r.sessions), "-seconds", strconv.Itoa(r.seconds))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running phase %s: %w", phase, err)
	}
	return nil
}

// secretsFile has the secrets of all sessions. They belong to browsers, not to the measured process.
func (r run) secretsFile() string { return filepath.Join(r.dir, "secrets") }

func mb[N int64 | float64](bytes N) float64 { return float64(bytes) / 1e6 }

// compare prints rates and sizes of both stores, measured in turns. Redis shares the machine, so only
// the ratios count.
func (r run) compare() (err error) {
	dir, err := os.MkdirTemp("", "scale-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	redis, err := process.StartRedis(r.ctx, dir)
	if err != nil {
		return err
	}
	defer redis.Stop()
	file := filepath.Join(dir, "sessions.db")
	empty, err := stores.Size(redis.URL())
	if err != nil {
		return err
	}
	const callers = 64
	var workers [2]*worker
	var logins, bytes [2]float64
	for i, place := range []string{file, redis.URL()} {
		w := &worker{run: r}
		w.place, w.dir = place, filepath.Join(dir, fmt.Sprint(i))
		workers[i] = w
		if err := os.Mkdir(w.dir, 0o700); err != nil {
			return err
		}
		if err := w.open(); err != nil {
			return err
		}
		defer w.Close()
		tenths, err := w.fill(callers)
		if err != nil {
			return err
		}
		size, err := stores.Size(place)
		if err != nil {
			return err
		}
		logins[i], bytes[i] = figures.SpreadOf(tenths).Median, float64(size-int64(i)*empty)/float64(r.sessions)
	}
	names := [3]string{"requests, 1,000 sessions in use", "requests, any session", "refreshes"}
	var rates [3][2][]float64
	for range r.rounds {
		for i, w := range workers {
			for j, m := range []struct {
				n    int
				call func(i int) error
			}{
				{200_000, func(int) error { return w.use(rand.IntN(min(1000, w.n))) }},
				{50_000, w.request},
				{r.sessions / 5, w.refresh},
			} {
				result, err := load.Times(m.n, callers, m.call)
				if err != nil {
					return fmt.Errorf("measuring %s: %w", names[j], err)
				}
				rates[j][i] = append(rates[j][i], result.Rate())
			}
		}
	}
	fmt.Printf("| | bolt | redis | ratio | spread of the ratio |\n|---|---:|---:|---:|---:|\n")
	fmt.Printf("| logins/s | %.0f | %.0f | %.2f | |\n", logins[0], logins[1], logins[1]/logins[0])
	for j, name := range names {
		var ratios []float64
		for round, rate := range rates[j][0] {
			ratios = append(ratios, rates[j][1][round]/rate)
		}
		ratio := figures.SpreadOf(ratios)
		fmt.Printf("| %s, /s | %.0f | %.0f | %.2f | %.2f–%.2f |\n", name, figures.SpreadOf(rates[j][0]).Median, figures.SpreadOf(rates[j][1]).Median, ratio.Median, ratio.Low, ratio.High)
	}
	fmt.Printf("| bytes a session | %.0f | %.0f | %.2f | |\n", bytes[0], bytes[1], bytes[1]/bytes[0])
	return nil
}
