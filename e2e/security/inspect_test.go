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

// inspect runs at the end of every test. It checks that the site still works, that the
// attacker's server received nothing, and that no secret leaked.
func (w *world) inspect(t testing.TB) {
	w.resetServers()
	w.checkServes(t)
	w.awaitGoroutineEnd(t)
	if contacts, got := w.attacker.received(); contacts > 0 {
		t.Errorf("the attacker's server got %d connections: %q", contacts, got)
	}
	for _, f := range w.findLeaks(t) {
		t.Errorf("leak: %v", f)
	}
	w.closeIdleConnections()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.transports = nil
}

// checkServes logs in. The test's last reload may close a connection; a browser would open
// it again, and so does this. It reports with Errorf, so that the rest of the inspection
// runs: the logs may show the reason.
func (w *world) checkServes(t testing.TB) {
	t.Helper()
	_, err := w.browser().tryLogin(t.Context(), "/alive")
	if lost := new(url.Error); errors.As(err, &lost) {
		t.Logf("the connection was lost: %v", err)
		_, err = w.browser().tryLogin(t.Context(), "/alive")
	}
	if err != nil {
		t.Errorf("the site does not serve after the test: %v", err)
	}
}

// maxExtraGoroutines bounds the goroutines beyond the number at the start.
const maxExtraGoroutines = 50

// awaitGoroutineEnd waits until the goroutines that a test caused have ended.
func (w *world) awaitGoroutineEnd(t testing.TB) {
	t.Helper()
	w.closeIdleConnections()
	deadline := time.Now().Add(waitLimit)
	for w.countGoroutines(t) > w.goroutines+maxExtraGoroutines {
		if time.Now().After(deadline) {
			_, profile := w.instances[0].Admin(t, http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
			t.Fatalf("got more than %d goroutines over the %d at the start: %.4000s", maxExtraGoroutines, w.goroutines, profile)
		}
		time.Sleep(20 * time.Millisecond) // poll interval
	}
}

func (w *world) countGoroutines(t testing.TB) int {
	t.Helper()
	_, profile := w.instances[0].Admin(t, http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
	line, _, _ := strings.Cut(profile, "\n")
	n, err := strconv.Atoi(strings.TrimPrefix(line, "goroutine profile: total "))
	if err != nil {
		t.Fatalf("got %q as first line of the goroutine profile", line)
	}
	return n
}

// metric returns the value of a metric without labels.
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
