package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// bolt measures the store in a file.
func (r *run) bolt() error {
	for _, part := range []func() error{r.boltFill, r.boltUse, r.boltStarts, r.boltSweeps} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// shared is a file system in memory.
const shared = "/dev/shm"

// boltFill fills a file in memory, where a flush takes no time, and copies it to
// the disk: a million logins would take an hour on a slow one. What a login
// takes is measured later, in the full file.
func (r *run) boltFill() error {
	memory, err := os.MkdirTemp(shared, "scale-*")
	if err != nil {
		return fmt.Errorf("making a directory in memory: %w", err)
	}
	defer os.RemoveAll(memory)
	r.Bolt = filepath.Join(memory, "sessions.db")
	o, err := r.steps(step{Do: "begin"}, step{Do: "open"}, step{Do: "fill", N: r.sessions}, step{Do: "close"})
	if err != nil {
		return err
	}
	fmt.Printf("| bolt: filling, in memory | |\n|---|---:|\n")
	printFill(o[2])
	onDisk := filepath.Join(r.dir, "sessions.db")
	if err := copyFile(onDisk, r.Bolt); err != nil {
		return err
	}
	r.Bolt = onDisk
	info, err := os.Stat(r.Bolt)
	if err != nil {
		return fmt.Errorf("looking at the file: %w", err)
	}
	fmt.Printf("| file, MB | %.0f |\n| bytes a session | %.0f |\n", mb(info.Size()), float64(info.Size())/float64(r.sessions))
	fmt.Println()
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying the file: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copying the file: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("copying the file: %w", err)
	}
	return nil
}

func printFill(o outcome) {
	fmt.Printf("| logins/s, %d callers | %.0f |\n", callers, float64(o.Done)/o.Seconds)
	fmt.Printf("| first tenth, last tenth | %.0f, %.0f |\n", o.Tenths[0], o.Tenths[len(o.Tenths)-1])
}

// boltUse measures the memory as it grows with use, and the writes of a full
// store. The process ends by kill -9 while it writes.
func (r *run) boltUse() error {
	p, err := r.start()
	if err != nil {
		return err
	}
	defer p.kill()
	outcomes, err := r.use(p)
	if err != nil {
		return err
	}
	printUse("bolt", outcomes)
	info, err := os.Stat(r.Bolt)
	if err != nil {
		return fmt.Errorf("looking at the file: %w", err)
	}
	fmt.Printf("| file then, MB | %.0f |\n\n", mb(info.Size()))
	return p.killAmidst(step{Do: "refresh", Seconds: 60})
}

// use does the same in a full store of either kind.
func (r *run) use(p *process) ([]outcome, error) {
	var outcomes []outcome
	seconds := float64(r.seconds)
	for _, s := range []step{
		{Do: "begin"}, {Do: "open"}, {Do: "live"}, {Do: "peek", N: r.sessions}, {Do: "live"},
		{Do: "request", Rate: 2000, Seconds: seconds}, {Do: "request", Seconds: seconds / 3},
		{Do: "login", Seconds: seconds / 3}, {Do: "refresh", Seconds: seconds}, {Do: "refresh", Seconds: seconds, IDToken: true}, {Do: "live"},
	} {
		o, err := p.do(s)
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// boltStarts opens the full file as it is left by a clean end and by a crash.
func (r *run) boltStarts() error {
	fmt.Printf("| bolt: start and first request | s, median | smallest–largest | read from disk, MB | anonymous then, MB | live, MB |\n|---|---:|---:|---:|---:|---:|\n")
	for _, kind := range []struct {
		name        string
		crash, cold bool
	}{
		{"after kill -9, file in the page cache", true, false},
		{"after kill -9, cold", true, true},
		{"after a clean end, file in the page cache", false, false},
		{"after a clean end, cold", false, true},
	} {
		var opened []outcome
		var live int64
		for range r.rounds {
			if !kind.crash {
				if _, err := r.steps(step{Do: "open"}, step{Do: "close"}); err != nil {
					return err
				}
			}
			if kind.cold {
				if err := evict(r.Bolt); err != nil {
					return err
				}
			}
			// The sweep writes at Open: what is killed now was written to.
			o, err := r.steps(step{Do: "begin"}, step{Do: "open"}, step{Do: "live"})
			if err != nil {
				return err
			}
			o[1].Most -= o[0].Memory.Anonymous
			opened, live = append(opened, o[1]), o[2].Live-o[0].Live
		}
		slices.SortFunc(opened, func(a, b outcome) int { return int((a.Seconds - b.Seconds) * 1e6) })
		m := opened[len(opened)/2]
		fmt.Printf("| %s | %.3f | %.3f–%.3f | %.0f | %.0f | %.1f |\n", kind.name, m.Seconds, opened[0].Seconds, opened[len(opened)-1].Seconds, mb(m.Disk), mb(m.Most), mb(live))
	}
	fmt.Println()
	return nil
}

// boltSweeps lets a tenth of the sessions expire in the same hour, while the
// others are used.
func (r *run) boltSweeps() error {
	const rate = 500
	fmt.Printf("| bolt: waits in ms, %d requests/s and %d refreshes/s | requests: median | p99 | p99.9 | longest | refreshes: median | p99 | longest | |\n|---|---:|---:|---:|---:|---:|---:|---:|---|\n", rate, rate/5)
	row := func(name string, o outcome, note string) {
		fmt.Printf("| %s | %.2f | %.1f | %.1f | %.1f | %.2f | %.1f | %.1f | %s |\n", name,
			o.Reads.Median, o.Reads.P99, o.Reads.P999, o.Reads.Longest, o.Writes.Median, o.Writes.P99, o.Writes.Longest, note)
	}
	for round := range 2 * r.rounds {
		cold := round%2 == 1
		if _, err := r.steps(step{Do: "open"}, step{Do: "expired", N: r.sessions / 10}, step{Do: "close"}); err != nil {
			return err
		}
		name := "sweep"
		if cold {
			name = "sweep, cold"
			if err := evict(r.Bolt); err != nil {
				return err
			}
		}
		p, err := r.start()
		if err != nil {
			return err
		}
		defer p.kill()
		if _, err := p.do(step{Do: "open"}); err != nil {
			return err
		}
		with, err := p.do(step{Do: "sweep", Rate: rate})
		if err != nil {
			return err
		}
		without, err := p.do(step{Do: "mixed", Rate: rate, Seconds: min(max(with.Seconds, 5), 60)})
		if err != nil {
			return err
		}
		row(name, with, fmt.Sprintf("%d in %.1f s", with.Done, with.Seconds))
		row("without", without, "")
		if _, err := p.do(step{Do: "close"}); err != nil {
			return err
		}
	}
	fmt.Println()
	return nil
}

func mb(n int64) float64 { return float64(n) / 1e6 }
