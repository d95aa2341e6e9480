package security

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// inspect is the end of every test: nobody has talked to the attacker, no
// secret is where it does not belong, and the site works as before.
func (w *world) inspect(t testing.TB) {
	w.resetServers()
	if !w.down {
		w.checkServes(t)
		w.awaitGoroutineEnd(t)
	}
	if contacts, got := w.attacker.received(); contacts > 0 {
		t.Errorf("somebody talked to the attacker, %d times: %q", contacts, got)
	}
	for _, f := range w.findLeaks(t) {
		t.Errorf("leak: %v", f)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tr := range w.transports {
		tr.CloseIdleConnections()
	}
	w.transports = nil
}

// stillServes logs in. A connection that is lost while a test's last reload
// replaces the listeners is made again, as a browser does. The Errorf lets the
// rest of the inspection go on: the logs may say why.
func (w *world) checkServes(t testing.TB) {
	t.Helper()
	_, err := w.browser().tryLogin(t.Context(), "/alive")
	if lost := new(url.Error); errors.As(err, &lost) {
		t.Logf("the connection was lost: %v", err)
		_, err = w.browser().tryLogin(t.Context(), "/alive")
	}
	if err != nil {
		t.Errorf("the site no longer serves: %v", err)
	}
}

// expectDown is for a test that leaves its own world out of order.
func (w *world) expectDown() { w.down = true }

// maxGoroutines is how many more there may be than at the start.
const maxExtraGoroutines = 50

// fewGoroutines waits for what a test has left behind to end.
func (w *world) awaitGoroutineEnd(t testing.TB) {
	t.Helper()
	w.mu.Lock()
	for _, tr := range w.transports {
		tr.CloseIdleConnections()
	}
	w.mu.Unlock()
	deadline := time.Now().Add(waitLimit)
	for w.countGoroutines(t) > w.goroutines+maxExtraGoroutines {
		if time.Now().After(deadline) {
			_, profile := w.instances[0].Admin(t, http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
			t.Fatalf("at the start there were %d goroutines, now: %.4000s", w.goroutines, profile)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

func (w *world) countGoroutines(t testing.TB) int {
	t.Helper()
	_, profile := w.instances[0].Admin(t, http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
	line, _, _ := strings.Cut(profile, "\n")
	n, err := strconv.Atoi(strings.TrimPrefix(line, "goroutine profile: total "))
	if err != nil {
		t.Fatalf("the goroutine profile begins with %q", line)
	}
	return n
}

// metric is the value of a metric without labels.
func (in *instance) metric(t testing.TB, name string) float64 {
	t.Helper()
	_, metrics := in.Admin(t, http.MethodGet, "/metrics", "")
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			f, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
