package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// loadPause is the longest pause of a visitor between two requests.
	loadPause = 80 * time.Millisecond
	// maxErrors bounds the output for one defect.
	maxErrors = 20
)

// loadVisitors returns the number of visitors of a load: LOAD_VISITORS, or 12 by default.
func loadVisitors(t *testing.T) int {
	t.Helper()
	text := os.Getenv("LOAD_VISITORS")
	if text == "" {
		return 12
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("reading LOAD_VISITORS: %v", err)
	}
	return n
}

// A load is a number of visitors who send requests to random instances of a fleet, one after the other, while the store
// fails. Access tokens live for shortLife, and refresh tokens are single use. An outage of the store may have one effect:
// an answer is either correct, or 503 with Retry-After. No visitor has to log in again.
type load struct {
	*fleet
	visitors []*visitor

	stop    context.CancelFunc
	running sync.WaitGroup
	expiry  *tokenExpiry

	mu      sync.Mutex
	issued  map[string]bool // access tokens
	tallies []tally         // by instance
	errs    []error
	lost    map[*visitor]bool // visitors without a session
}

// A tally counts the answers of one instance.
type tally struct {
	ok, unavailable int
	slowest         time.Duration
}

// newLoad returns a load on a fleet. Instances may join the fleet until start.
func newLoad(f *fleet) *load {
	return &load{fleet: f, expiry: newTokenExpiry(), issued: map[string]bool{}, lost: map[*visitor]bool{}}
}

// issue sets expires_in of a token answer to shortLife. At the server, access tokens live for longLife, so that checkAnswer
// can look up their user at any time.
func (l *load) issue(_ string, answer map[string]any) {
	token, _ := answer["access_token"].(string)
	answer["expires_in"] = shortLife.Seconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.issued[token] = true
}

// startLoad starts a fleet with one Redis and a load on it.
func startLoad(t *testing.T, redis *redisserver.Server) *load {
	t.Helper()
	l := newLoad(startFleet(t, fleetPlan{redis: redis}))
	l.start(t)
	return l
}

// startLoadOn starts a load on one instance per store. A store is the arguments of `store redis`.
func startLoadOn(t *testing.T, stores ...string) *load {
	t.Helper()
	l := newLoad(emptyFleet(t))
	key := newKey()
	for _, store := range stores {
		l.addNode(t, nodePlan{key: key, store: store, app: l.app.Addr()})
	}
	l.start(t)
	return l
}

// emptyFleet returns a fleet without instances and without Redis.
func emptyFleet(t *testing.T) *fleet {
	t.Helper()
	return startFleet(t, fleetPlan{keys: []string{}, redis: &redisserver.Server{}})
}

// start logs the visitors in and waits until each has had two refreshes at every instance.
func (l *load) start(t *testing.T) {
	t.Helper()
	l.as.Set(func(k *fakeas.Knobs) { k.Mutate = l.issue })
	l.tallies = make([]tally, len(l.nodes))
	for i, n := range l.nodes {
		// On a busy machine, an instance may not have reached its store yet.
		eventually(t, fmt.Sprintf("readiness of instance %d", i), func() bool {
			status, _ := n.Admin(t, http.MethodGet, "/oauth_session/ready", "")
			return status == http.StatusOK
		})
	}
	for i := range loadVisitors(t) {
		l.visitors = append(l.visitors, l.loginVisitor(t, fmt.Sprintf("visitor-%d", i), i))
	}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	for _, v := range l.visitors {
		l.running.Go(func() { l.runVisitor(ctx, v) })
	}
	t.Cleanup(func() {
		stop()
		l.running.Wait()
	})
	l.awaitRefreshed(t)
	l.awaitRefreshed(t)
}

// runVisitor sends a visitor's requests until ctx ends or the session is lost.
func (l *load) runVisitor(ctx context.Context, v *visitor) {
	for n := 0; ctx.Err() == nil; n++ {
		instance := rand.IntN(len(l.nodes))
		// Without a pause, the visitors would use all processors.
		time.Sleep(rand.N(loadPause))
		sent := time.Now()
		resp, err := v.request(ctx, instance, n)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = l.checkResponse(v, instance, resp, sent)
		}
		if err != nil && l.recordError(v, instance, err) {
			return
		}
	}
}

// request sends request number n: a navigation for one of eight, otherwise a fetch.
func (v *visitor) request(ctx context.Context, instance, n int) (*client.Response, error) {
	if n%8 == 7 {
		return v.at[instance].Navigate(ctx, v.fleet.site+"/page")
	}
	return v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
}

// errSessionLost is the error for an answer that asks the visitor to log in.
var errSessionLost = errors.New("the session is lost")

// checkResponse accepts a correct answer of the app, and a 503 that leaves the session cookie alone.
func (l *load) checkResponse(v *visitor, instance int, resp *client.Response, sent time.Time) error {
	l.mu.Lock()
	count := &l.tallies[instance]
	count.slowest = max(count.slowest, time.Since(sent))
	if resp.Status == http.StatusServiceUnavailable {
		count.unavailable++
	} else {
		count.ok++
	}
	l.mu.Unlock()
	switch {
	case resp.Status == http.StatusServiceUnavailable:
		if resp.Header.Get("Retry-After") == "" || resp.Header["Set-Cookie"] != nil || resp.Header.Get("Location") != "" {
			return fmt.Errorf("got %v with %v, want Retry-After and no cookie", resp, resp.Header)
		}
		return nil
	case asksForLogin(resp):
		return fmt.Errorf("%w: %v", errSessionLost, resp)
	}
	token, err := v.checkAnswer(resp)
	if err != nil {
		return err
	}
	return l.expiry.check(token, shortLife, sent)
}

func asksForLogin(resp *client.Response) bool {
	return resp.Status == http.StatusUnauthorized || resp.Location() != nil
}

// recordError records an error and reports whether the visitor's session is lost.
func (l *load) recordError(v *visitor, instance int, err error) (lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, errSessionLost) {
		l.lost[v] = true
	}
	if len(l.errs) < maxErrors {
		l.errs = append(l.errs, fmt.Errorf("%s, %s at instance %d: %w", time.Now().Format("15:04:05.000"), v.name, instance, err))
	}
	return l.lost[v]
}

// unavailable returns the number of 503 answers of each instance.
func (l *load) unavailable() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n []int
	for _, one := range l.tallies {
		n = append(n, one.unavailable)
	}
	return n
}

// continueFor waits while the load continues, and logs the number of 503 answers in that time.
func (l *load) continueFor(t *testing.T, state string, d time.Duration) {
	t.Helper()
	before := l.unavailable()
	time.Sleep(d)
	after := l.unavailable()
	for i := range after {
		after[i] -= before[i]
	}
	t.Logf("%s for %v: %v answers 503 by instance", state, d, after)
}

// awaitRefreshed waits until each remaining visitor has got a token issued after this call at every instance. The store and
// refreshes then work at all instances.
func (l *load) awaitRefreshed(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	old := maps.Clone(l.issued)
	l.mu.Unlock()
	for _, v := range l.remaining() {
		for i := range l.nodes {
			eventually(t, fmt.Sprintf("new token for %s at instance %d", v.name, i), func() bool {
				resp, err := v.request(t.Context(), i, 0)
				if err != nil {
					t.Fatal(err)
				}
				if asksForLogin(resp) {
					l.recordError(v, i, fmt.Errorf("%w: %v", errSessionLost, resp))
					return true
				}
				return bearer(resp) != "" && !old[bearer(resp)]
			})
		}
	}
}

// remaining returns the visitors with a session.
func (l *load) remaining() []*visitor {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*visitor
	for _, v := range l.visitors {
		if !l.lost[v] {
			all = append(all, v)
		}
	}
	return all
}

// finish waits until all sessions work, stops the load, and fails the test if any answer was wrong or any token was sent
// twice.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.awaitRecovery(t)
	for _, err := range l.errs {
		t.Error(err)
	}
	l.wantNoTokenReuse(t, len(l.visitors))
}

// awaitRecovery waits until the remaining sessions work at all instances, and stops the load.
func (l *load) awaitRecovery(t *testing.T) {
	t.Helper()
	l.awaitRefreshed(t)
	l.stop()
	l.running.Wait()
	for i, n := range l.tallies {
		t.Logf("instance %d: %d correct answers, %d answers 503, the slowest after %v", i, n.ok, n.unavailable, n.slowest)
	}
}

// want503 fails the test if no instance noticed the outage: the test would then show nothing.
func (l *load) want503(t *testing.T) {
	t.Helper()
	if slices.Max(l.unavailable()) == 0 {
		t.Error("got no answer 503 during the outage, want some")
	}
}
