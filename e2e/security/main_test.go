package security

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "security-")
	if err == nil {
		err = letPoolsBoundParallelism()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := &suite{dir: dir}
	wholeSuite = s
	code := m.Run()
	s.end()
	os.RemoveAll(dir)
	if s.Failed() && code == 0 {
		code = 1
	}
	os.Exit(code)
}

// wholeSuite owns the resources that all tests share.
var wholeSuite *suite

// A suite is the testing.TB of a resource that lives as long as the test program.
type suite struct {
	testing.TB        // nil: only the methods defined here may be called
	dir        string // for temporary files

	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

func (s *suite) Helper()                  {}
func (s *suite) Name() string             { return "suite" }
func (s *suite) Output() io.Writer        { return os.Stderr }
func (s *suite) Context() context.Context { return context.Background() }
func (s *suite) Log(args ...any)          { fmt.Fprintln(os.Stderr, args...) }
func (s *suite) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (s *suite) Errorf(format string, args ...any) { s.Logf(format, args...); s.Fail() }
func (s *suite) Error(args ...any)                 { s.Log(args...); s.Fail() }
func (s *suite) Fatalf(format string, args ...any) { s.Errorf(format, args...); s.FailNow() }
func (s *suite) Fatal(args ...any)                 { s.Error(args...); s.FailNow() }
func (s *suite) FailNow()                          { s.Fail(); runtime.Goexit() }

func (s *suite) Fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}

func (s *suite) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *suite) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *suite) TempDir() string {
	dir, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		s.Fatal(err)
	}
	return dir
}

func (s *suite) ArtifactDir() string { return s.dir }

// end runs the cleanups in reverse order.
func (s *suite) end() {
	for _, f := range slices.Backward(s.cleanups) {
		s.run(f)
	}
}

// run calls f on a goroutine, because FailNow ends the goroutine that calls it.
func (s *suite) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// A cleanupTB is a test during its cleanup, with a context that has not ended yet.
type cleanupTB struct {
	testing.TB
	ctx context.Context
}

// cleanupLimit bounds one function of atCleanup.
const cleanupLimit = 5 * time.Minute

func atCleanup(t testing.TB, f func(testing.TB)) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		f(cleanupTB{t, ctx})
	})
}

func (l cleanupTB) Context() context.Context { return l.ctx }

// waitLimit bounds every wait for an event. It is far longer than a busy machine needs,
// and ends a test that has failed.
const waitLimit = 2 * time.Minute

// eventually polls ok until it returns true. The event is a noun phrase for the failure
// message.
func eventually(t testing.TB, event string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no %s within %v", event, waitLimit)
		}
	}
}
