package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCachedFillsOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	input := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(input, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	const callers = 8
	var fills atomic.Int32
	var called sync.WaitGroup
	called.Add(callers)
	fill := func(dir string) error {
		fills.Add(1)
		called.Wait() // all callers run now
		for range 1000 {
			runtime.Gosched()
		}
		return os.WriteFile(filepath.Join(dir, "made"), nil, 0o600)
	}
	var wg sync.WaitGroup
	dirs := make([]string, callers)
	for i := range dirs {
		wg.Go(func() {
			called.Done()
			dir, err := Cached("thing", []string{input}, fill)
			if err != nil {
				t.Error(err)
			}
			dirs[i] = dir
		})
	}
	wg.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("got %d calls of fill, want 1", n)
	}
	for _, dir := range dirs {
		if dir != dirs[0] {
			t.Errorf("the same input: got %s and %s, want one directory", dir, dirs[0])
		}
		if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
			t.Error(err)
		}
	}

	if err := os.WriteFile(input, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := Cached("thing", []string{input}, fill)
	if err != nil {
		t.Fatal(err)
	}
	if other == dirs[0] || fills.Load() != 2 {
		t.Errorf("a changed input: got directory %s after %d calls of fill, want a new one after 2", other, fills.Load())
	}
}

func TestCachedRemovesResultsOfFailedFill(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broken := errors.New("no network")
	_, err := Cached("thing", nil, func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got error %v, want %v", err, broken)
	}
	dir, err := Cached("thing", nil, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("got entries %v and error %v, want an empty directory", entries, err)
	}
}

func TestRunReportsOutputOfFailedCommand(t *testing.T) {
	err := Run(context.Background(), "", nil, "sh", "-c", "echo to stdout; echo to stderr >&2; exit 3")
	if err == nil {
		t.Fatal("got no error, want one")
	}
	for _, want := range []string{"exit status 3", "to stdout", "to stderr"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q lacks %q", err, want)
		}
	}
}
