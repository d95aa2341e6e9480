package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// loadPause is the most time that a visitor takes between two requests.
	loadPause = 80 * time.Millisecond
	// maxComplaints bounds what one defect fills the output with.
	maxComplaints = 20
)

// loadVisitors is how many visitors a load has: few in every run, LOAD_VISITORS
// where it is set.
func loadVisitors(t *testing.T) int {
	t.Helper()
	text := os.Getenv("LOAD_VISITORS")
	if text == "" {
		return 12
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("LOAD_VISITORS: %v", err)
	}
	return n
}

// A load is visitors who ask instances of a fleet at random, one request after the other, whatever happens to the store.
// Their tokens live shortly and are good for one use. What an outage of the store may do to them is fixed here: an answer is
// their own, or it is 503 and asks to come back, and nobody logs in again.
type load struct {
	*fleet
	visitors []*visitor

	stop    context.CancelFunc
	asking  sync.WaitGroup
	mu      sync.Mutex
	issued  map[string]bool      // access tokens
	ends    map[string]time.Time // of access tokens that somebody has been served with
	tallies []tally              // by instance
	wrong   []error
	lost    map[*visitor]bool // who were asked to log in again
}

// A tally counts the answers of one instance.
type tally struct {
	good, unavailable int
	slowest           time.Duration
}

// newLoad returns a load on a fleet that may have no instances yet.
func newLoad(f *fleet) *load {
	return &load{fleet: f, issued: map[string]bool{}, ends: map[string]time.Time{}, lost: map[*visitor]bool{}}
}

// issue makes a token answer tell a short life. The server itself lets tokens live for long, so
// that it can be asked at any time whose they are.
func (l *load) issue(_ string, answer map[string]any) {
	token, _ := answer["access_token"].(string)
	answer["expires_in"] = shortLife.Seconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.issued[token] = true
}

// overSince notes that somebody has been served with a token, and reports whether its life was over at a time already. The
// proxy counts a life from when it has the token, which is before anybody has an answer with it.
func (l *load) overSince(token string, t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends, known := l.ends[token]
	if !known {
		l.ends[token] = time.Now().Add(shortLife)
	}
	return known && t.After(ends)
}

// startLoad starts a fleet on one Redis and puts it under load.
func startLoad(t *testing.T, redis *redisserver.Server) *load {
	t.Helper()
	l := newLoad(startFleet(t, fleetPlan{redis: redis}))
	l.begin(t)
	return l
}

// startLoadOn is startLoad for instances with these stores, as the Caddyfile has them.
func startLoadOn(t *testing.T, stores ...string) *load {
	t.Helper()
	l := newLoad(emptyFleet(t))
	key := newKey()
	for _, store := range stores {
		l.join(t, key, store, l.app.Addr())
	}
	l.begin(t)
	return l
}

// emptyFleet is a fleet without instances and without a Redis of its own.
func emptyFleet(t *testing.T) *fleet {
	t.Helper()
	return startFleet(t, fleetPlan{keys: []string{}, redis: &redisserver.Server{}})
}

// join starts an instance with a store, in front of the app at an address.
func (f *fleet) join(t *testing.T, key, store, app string) *node {
	t.Helper()
	n := &node{addr: fmt.Sprintf("localhost:%d", proc.FreePort(t)), keyFile: filepath.Join(t.TempDir(), "key")}
	n.setKeys(t, key)
	options := fmt.Sprintf("base_url %s\nstore redis %s\nkey {file.%s}", f.site, store, n.keyFile)
	upstream := "reverse_proxy " + app + " {\n\theader_up X-User {http.auth.user.id}\n}\n"
	n.config = caddyserver.Config{Env: secret(f.op), Sites: block("http://"+n.addr, protect(f.op, options)+upstream)}
	n.Server = caddyserver.Start(t, n.config)
	f.nodes = append(f.nodes, n)
	return n
}

// begin logs the visitors in and lets them ask until each has seen two refreshes.
func (l *load) begin(t *testing.T) {
	t.Helper()
	l.as.Set(func(k *fakeas.Knobs) { k.Mutate = l.issue })
	l.tallies = make([]tally, len(l.nodes))
	for i, n := range l.nodes {
		// A busy machine may have kept an instance from reaching its store so far.
		eventually(t, fmt.Sprintf("store at instance %d", i), func() bool {
			status, _ := n.Admin(t, http.MethodGet, "/oauth_session/ready", "")
			return status == http.StatusOK
		})
	}
	for i := range loadVisitors(t) {
		l.visitors = append(l.visitors, l.welcome(t, fmt.Sprintf("visitor-%d", i), i))
	}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	for _, v := range l.visitors {
		l.asking.Go(func() { l.visit(ctx, v) })
	}
	t.Cleanup(func() {
		stop()
		l.asking.Wait()
	})
	l.awaitRefreshed(t)
	l.awaitRefreshed(t)
}

// visit asks until it is told to stop, or the session is lost.
func (l *load) visit(ctx context.Context, v *visitor) {
	for n := 0; ctx.Err() == nil; n++ {
		instance := rand.IntN(len(l.nodes))
		// Without a pause the visitors would need the whole machine.
		time.Sleep(rand.N(loadPause))
		begun := time.Now()
		resp, err := v.come(ctx, instance, n)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = l.judge(v, instance, resp, begun)
		}
		if err != nil && l.complain(v, instance, err) {
			return
		}
	}
}

// come asks as a script does, and now and then as a user who opens a page.
func (v *visitor) come(ctx context.Context, instance, n int) (*client.Response, error) {
	if n%8 == 7 {
		return v.at[instance].Navigate(ctx, v.fleet.site+"/page")
	}
	return v.at[instance].Fetch(ctx, http.MethodGet, v.fleet.site+"/api", "")
}

// errLoggedOut: the session is not known any more.
var errLoggedOut = errors.New("asked to log in again")

// judge accepts the visitor's own answer, and one that says that the store is out of reach and leaves the session alone.
func (l *load) judge(v *visitor, instance int, resp *client.Response, begun time.Time) error {
	l.mu.Lock()
	count := &l.tallies[instance]
	count.slowest = max(count.slowest, time.Since(begun))
	if resp.Status == http.StatusServiceUnavailable {
		count.unavailable++
	} else {
		count.good++
	}
	l.mu.Unlock()
	switch {
	case resp.Status == http.StatusServiceUnavailable:
		if resp.Header.Get("Retry-After") == "" || resp.Header["Set-Cookie"] != nil || resp.Header.Get("Location") != "" {
			return fmt.Errorf("%v with %v: want Retry-After, and no cookie touched", resp, resp.Header)
		}
		return nil
	case loggedOut(resp):
		return fmt.Errorf("%w: %v", errLoggedOut, resp)
	}
	token, err := v.own(resp)
	if err == nil && l.overSince(token, begun) {
		err = errors.New("served with a token whose life was over before the request was sent")
	}
	return err
}

func loggedOut(resp *client.Response) bool {
	return resp.Status == http.StatusUnauthorized || resp.Location() != nil
}

// complain notes what went wrong, and reports whether the visitor's session is lost.
func (l *load) complain(v *visitor, instance int, err error) (lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, errLoggedOut) {
		l.lost[v] = true
	}
	if len(l.wrong) < maxComplaints {
		l.wrong = append(l.wrong, fmt.Errorf("%s, %s at instance %d: %w", time.Now().Format("15:04:05.000"), v.name, instance, err))
	}
	return l.lost[v]
}

// unavailable returns how often each instance has answered that the store is out of reach.
func (l *load) unavailable() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n []int
	for _, one := range l.tallies {
		n = append(n, one.unavailable)
	}
	return n
}

// during lets the load go on for a while in a state that the test has brought about.
func (l *load) during(t *testing.T, what string, d time.Duration) {
	t.Helper()
	before := l.unavailable()
	time.Sleep(d)
	after := l.unavailable()
	for i := range after {
		after[i] -= before[i]
	}
	t.Logf("%s for %v: %v answers 503", what, d, after)
}

// awaitRefreshed waits until every visitor who is left has got, at every instance, a token that was issued after this
// call: then store and refreshes work everywhere.
func (l *load) awaitRefreshed(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	old := maps.Clone(l.issued)
	l.mu.Unlock()
	for _, v := range l.remaining() {
		for i := range l.nodes {
			eventually(t, fmt.Sprintf("fresh token for %s at instance %d", v.name, i), func() bool {
				resp, err := v.come(t.Context(), i, 0)
				if err != nil {
					t.Fatal(err)
				}
				if loggedOut(resp) {
					l.complain(v, i, fmt.Errorf("%w: %v", errLoggedOut, resp))
					return true
				}
				return bearer(resp) != "" && !old[bearer(resp)]
			})
		}
	}
}

// remaining returns the visitors who have not lost their sessions.
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

// finish demands that all is well again, stops the load, and demands that nothing went wrong from beginning to end.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.settle(t)
	for _, err := range l.wrong {
		t.Error(err)
	}
	l.unspoiled(t, len(l.visitors))
}

// settle is the part of finish that no fault excuses: who is left is well, and nobody was ever served wrongly.
func (l *load) settle(t *testing.T) {
	t.Helper()
	l.awaitRefreshed(t)
	l.stop()
	l.asking.Wait()
	for i, n := range l.tallies {
		t.Logf("instance %d: %d good answers, %d times 503, none later than %v", i, n.good, n.unavailable, n.slowest)
	}
}

// demand503 demands that the outage was felt.
func (l *load) demand503(t *testing.T) {
	t.Helper()
	if slices.Max(l.unavailable()) == 0 {
		t.Error("no instance ever answered 503: the test does not see what it is for")
	}
}
