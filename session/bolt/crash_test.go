package bolt

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// crashEnv is the environment variable that makes the test binary the process to kill.
// Its value is the path of the file.
const crashEnv = "BOLT_TEST_CRASH_PATH"

const (
	crashWorkers = 8
	crashSteps   = 6 // versions 1 to 5, then a Delete of every third item
)

// crashItem returns the item as it is stored after a step.
func crashItem(name string, step int) (session.ID, session.Item) {
	return sha256.Sum256([]byte(name)), session.Item{
		Version: uint64(step),
		Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		Value:   []byte(strings.Repeat(fmt.Sprint(name, step, " "), 100+20*step)),
	}
}

func crashDeletes(name string) bool { return sha256.Sum256([]byte(name))[31]%3 == 0 }

// crashChild writes until it is killed. It prints each step after the store has
// acknowledged it, in one line with one system call.
func crashChild(path string) {
	s, err := Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for range crashWorkers {
		wg.Go(func() {
			for {
				if err := crashSequence(s); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}
		})
	}
	wg.Wait()
}

func crashSequence(s *Store) error {
	ctx, name := context.Background(), fmt.Sprintf("%016x", rand.Uint64())
	for step := 1; step <= crashSteps; step++ {
		id, item := crashItem(name, step)
		var err error
		switch {
		case step == 1:
			err = s.Create(ctx, id, item)
		case step < crashSteps:
			err = s.Replace(ctx, id, item)
		case crashDeletes(name):
			err = s.Delete(ctx, id)
		default:
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Printf("%s %d\n", name, step); err != nil {
			return err
		}
	}
	return nil
}

func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	cycles := 6
	if testing.Short() {
		cycles = 2
	}
	path := newPath(t)
	acknowledged := map[string]int{} // the last step of each item
	for cycle := range cycles {
		before := len(acknowledged)
		runAndKill(t, path, 50+rand.IntN(500), acknowledged)
		if len(acknowledged) == before {
			t.Fatal("the process acknowledged nothing")
		}
		if freelistSaved(t, path) {
			t.Error("the process closed its store before it was killed")
		}
		s := open(t, path)
		ahead := 0
		for name, step := range acknowledged {
			kept := keptStep(t, s, name)
			switch {
			case kept == step+1:
				ahead++ // killed between the write and the print
			case kept != step:
				t.Errorf("cycle %d: item %s: got step %d, want the acknowledged step %d", cycle, name, kept, step)
			}
			acknowledged[name] = kept
		}
		if ahead > crashWorkers {
			t.Errorf("%d items are ahead of their acknowledgement, want at most %d, one for each worker", ahead, crashWorkers)
		}
		checkFile(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d items, %d kills", len(acknowledged), cycles)
}

// runAndKill starts a child, kills it after a number of acknowledged steps, and adds
// all steps that it printed to acknowledged.
func runAndKill(t *testing.T, path string, steps int, acknowledged map[string]int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), crashEnv+"="+path)
	var stderr strings.Builder
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var name string
		var step int
		if _, err := fmt.Sscanf(lines.Text(), "%s %d", &name, &step); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		acknowledged[name] = max(acknowledged[name], step)
		if seen++; seen == steps {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = child.Wait() // always an error, because the child was killed
	if seen < steps {
		t.Fatalf("the process ended before it was killed: %s", stderr.String())
	}
}

// keptStep reads an item and returns its step. The value must belong to that step.
func keptStep(t *testing.T, s *Store, name string) int {
	t.Helper()
	id, _ := crashItem(name, 0)
	step := 0
	err := s.View(t.Context(), id, func(item session.Item) error {
		step = int(item.Version)
		if _, want := crashItem(name, step); string(item.Value) != string(want.Value) {
			return fmt.Errorf("item %s: got a value that was not written as version %d", name, step)
		}
		return nil
	})
	if errors.Is(err, session.ErrNotFound) && crashDeletes(name) {
		return crashSteps
	}
	if err != nil {
		t.Errorf("item %s: %v", name, err)
	}
	return step
}

func checkFile(t *testing.T, s *Store) {
	t.Helper()
	err := s.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("checking the file: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
