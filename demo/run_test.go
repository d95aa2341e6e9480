package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEndOfDemoStopsAllProcesses(t *testing.T) {
	for _, tc := range []struct{ name, run string }{
		{"ends on SIGTERM", "echo up >&3; exec sleep 600"},
		{"has children", "sleep 600 & echo up >&3; sleep 600"},
		{"ignores SIGTERM", `trap "" TERM; echo up >&3; while :; do sleep 0.1; done`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, l := emptyTempDir(t), newLeash(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out bytes.Buffer
			ended := make(chan error, 1)
			go func() {
				ended <- demo{checkout: "..", caddy: fakeCaddy(t, l, tc.run), tokenLifetime: time.Minute, out: &out}.run(ctx)
			}()
			l.awaitStart(t)
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("got error %v, want none", err)
			}
			l.awaitEnd(t)
			wantEmpty(t, dir)
		})
	}
}

func TestUnexpectedEndOfCaddyEndsTheDemo(t *testing.T) {
	for _, tc := range []struct{ name, run, want string }{
		{"with an error", "echo boom >&2; exit 3", "exit status 3"},
		{"without an error", "echo boom; exit 0", "exit status 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, l := emptyTempDir(t), newLeash(t)
			var out bytes.Buffer
			err := demo{checkout: "..", caddy: fakeCaddy(t, l, tc.run), tokenLifetime: time.Minute, out: &out}.run(t.Context())
			if err == nil || !strings.Contains(err.Error(), "caddy ended unexpectedly: "+tc.want) || !strings.Contains(err.Error(), "boom") {
				t.Errorf("got error %v, want one with %s and Caddy's output", err, tc.want)
			}
			l.awaitEnd(t)
			wantEmpty(t, dir)
		})
	}
}

func TestUnexpectedEndOfServerEndsTheDemo(t *testing.T) {
	ln, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	otherEnded := false
	err = runTogether(t.Context(),
		serve("the app", ln, http.NotFoundHandler()),
		func(ctx context.Context) error {
			<-ctx.Done()
			otherEnded = true
			return nil
		},
	)
	if err == nil || !strings.HasPrefix(err.Error(), "the app ended unexpectedly: ") || !otherEnded {
		t.Errorf("got error %v, want one that names the app; the other part ended: %t", err, otherEnded)
	}
}

// TestServeFinishesRunningRequests ends a server during a request.
func TestServeFinishesRunningRequests(t *testing.T) {
	ln, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- serve("the app", ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			cancel()
			w.WriteHeader(http.StatusTeapot)
		}))(ctx)
	}()
	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("got status %s, want 418", resp.Status)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: got error %v, want none", err)
	}
	if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		conn.Close()
		t.Error("after serve: the port accepts connections")
	}
}

func TestEndOfDemoStopsTheBuild(t *testing.T) {
	dir, l, checkout := emptyTempDir(t), newLeash(t), t.TempDir()
	l.script(t, filepath.Join(checkout, "xcaddy.build"), `mkdir "$TMPDIR/scratch"; sleep 600 & echo up >&3; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() { ended <- demo{checkout: checkout, out: &out}.run(ctx) }()
	l.awaitStart(t)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got error %v, want none", err)
	}
	l.awaitEnd(t)
	wantEmpty(t, dir)
}

func TestCaddyIsBuiltInTheCheckout(t *testing.T) {
	l, checkout := newLeash(t), t.TempDir()
	script := filepath.Join(checkout, "xcaddy.build")
	d := demo{checkout: checkout, out: new(bytes.Buffer)}

	l.script(t, script, `echo made > "$OUTPUT"`)
	caddy, err := d.findCaddy(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(caddy); string(text) != "made\n" || filepath.Dir(caddy) != checkout {
		t.Errorf("%s: got %q and error %v, want the built file in the checkout", caddy, text, err)
	}

	l.script(t, script, `echo "no such module"; exit 1`)
	if _, err = d.findCaddy(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "no such module") {
		t.Errorf("failed build: got error %v, want one with its output", err)
	}
}

func TestInvalidCaddyfileIsReported(t *testing.T) {
	dir, l := emptyTempDir(t), newLeash(t)
	caddy := l.script(t, filepath.Join(t.TempDir(), "caddy"), `echo "line 3: unknown option" >&2; exit 1`)
	err := demo{checkout: "..", caddy: caddy, out: new(bytes.Buffer)}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "line 3: unknown option") {
		t.Errorf("got error %v, want one with Caddy's message", err)
	}
	wantEmpty(t, dir)
}

func TestRunTogetherReturnsTheFirstError(t *testing.T) {
	first := errors.New("first")
	err := runTogether(t.Context(),
		func(context.Context) error { return first },
		func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("second")
		},
	)
	if !errors.Is(err, first) {
		t.Errorf("got error %v, want %v", err, first)
	}
}
