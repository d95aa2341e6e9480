package e2e

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// recoveryLimit bounds the time from the recovery of the authorization server until every session works: the longest
// Retry-After, and the same time again for a slow server and a slow machine.
const recoveryLimit = 2 * longestWait

// TestScenes lets the authorization server fail while many sessions are due for a refresh. No session is lost, no refresh
// token is sent twice, each session is refreshed once, and all work soon after the server's recovery. FULL=1 uses more
// sessions and longer failures.
func TestScenes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// quick is the size without FULL=1.
		quick, full sceneSize
		expired     func(i int) bool
		neighbours  int
		// fail starts the failure and returns the function that ends it.
		fail func(t *testing.T, s *scene) (end func())
		// checkRecovered checks this scene after the recovery, checkEnd after another refresh of all sessions.
		checkRecovered, checkEnd func(t *testing.T, s *scene)
		// waiting is the number of sessions that have to wait for longestWait. A quick run does not wait for them.
		waiting int
		// fullOnly skips a scene that is too long for a quick run.
		fullOnly bool
	}{
		{
			name: "keys that are not cached", quick: sceneSize{sessions: 100}, full: sceneSize{sessions: 1000},
			expired: everySecond, fail: rotateKey, checkEnd: wantNewClaims,
		},
		{
			name: "keys that are published later", quick: sceneSize{sessions: 100}, full: sceneSize{sessions: 1000},
			expired: everySecond, fail: rotateUnpublishedKey, checkRecovered: wantFormerClaims,
		},
		{
			name: "answers after 12 seconds", quick: sceneSize{sessions: 60}, full: sceneSize{sessions: 1000},
			expired: everySecond, fail: answerSlowly,
		},
		{
			name: "HTML with status 400", quick: sceneSize{sessions: 100, lasts: 2 * time.Second},
			full:    sceneSize{sessions: 1000, lasts: 2 * time.Second},
			expired: everySecond, fail: answerAlways(fakeas.Answer(http.StatusBadRequest, "text/html", "<html><h1>400 Bad Request</h1></html>")),
		},
		{
			name: "Retry-After 3600 once", quick: sceneSize{sessions: 100}, full: sceneSize{sessions: 1000},
			expired: everySession, fail: answerRetryAfterHour(1), waiting: 1,
		},
		{
			name: "Retry-After 3600 ten times", full: sceneSize{sessions: 1000},
			expired: everySession, fail: answerRetryAfterHour(10), fullOnly: true,
		},
		{
			name: "connections refused", quick: sceneSize{sessions: 300, lasts: 3 * time.Second},
			full:    sceneSize{sessions: 20_000, lasts: time.Minute},
			expired: everySecond, neighbours: 50, fail: refuseConnections,
		},
		{
			name: "status 503", full: sceneSize{sessions: 5000, lasts: time.Minute},
			expired: everySecond, neighbours: 50, fail: answerAlways(fakeas.Unavailable()), checkRecovered: wantFewRequests, fullOnly: true,
		},
		{
			name: "no answer at all", full: sceneSize{sessions: 1000, lasts: time.Minute},
			expired: everySecond, neighbours: 50, fail: answerNever, checkRecovered: wantFewRequests, fullOnly: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			size, waiting := tc.full, 0
			if !fullScenes {
				if tc.fullOnly {
					t.Skip("takes minutes; FULL=1 runs it")
				}
				t.Parallel()
				size, waiting = tc.quick, tc.waiting
			}
			s := startScene(t, scenePlan{
				sessions: size.sessions, expired: tc.expired, neighbours: tc.neighbours, concurrency: min(size.sessions, 1000),
			})
			s.logInOnce(t)
			end := tc.fail(t, s)
			s.askDuringFailure(t, size.lasts)
			end()
			s.awaitRecovery(t, waiting)
			if tc.checkRecovered != nil {
				tc.checkRecovered(t, s)
			}
			s.wantIntact(t, waiting)
			if tc.checkEnd != nil {
				tc.checkEnd(t, s)
			}
		})
	}
}

// A sceneSize is the number of sessions, and the duration of the failure after the first requests.
type sceneSize struct {
	sessions int
	lasts    time.Duration
}

// rotateKey lets the server sign with a new key, which it publishes at once.
func rotateKey(_ *testing.T, s *scene) func() {
	s.main.as.RotateKey()
	return func() {}
}

// rotateUnpublishedKey lets the server sign with a new key, while its JWKS still contains the former key only.
func rotateUnpublishedKey(t *testing.T, s *scene) func() {
	t.Helper()
	resp, err := s.http.Get(s.main.as.URL + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	former, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	s.main.as.RotateKey()
	s.main.as.Fail(fakeas.Answer(http.StatusOK, "application/json", string(former)).At(fakeas.EndpointJWKS).Repeat(-1))
	return func() {}
}

// wantNewClaims fails the test unless all sessions have the claims of an ID token signed with the new key. On a busy machine,
// only the second refresh may have got the key in time.
func wantNewClaims(t *testing.T, s *scene) {
	t.Helper()
	if n := s.main.as.Stats().Requests[fakeas.EndpointJWKS]; n < 2 {
		t.Errorf("got %d requests for the keys, want at least 2", n)
	}
	s.wantClaims(t, func(email string) bool { return email != formerEmail })
}

// wantFormerClaims fails the test if an ID token without a published key has changed the claims.
func wantFormerClaims(t *testing.T, s *scene) {
	t.Helper()
	s.wantClaims(t, func(email string) bool { return email == formerEmail })
	s.main.as.ClearFaults()
}

// wantClaims fails the test unless ok returns true for the e-mail address of all sessions.
func (s *scene) wantClaims(t *testing.T, ok func(email string) bool) {
	t.Helper()
	wrong := 0
	for _, u := range s.main.users {
		v, err := s.ask(t.Context(), u, "/api")
		if err != nil {
			t.Fatal(err)
		}
		if !ok(v.email) {
			wrong++
		}
	}
	if wrong != 0 {
		t.Errorf("got %d of %d sessions with wrong claims, want none", wrong, len(s.main.users))
	}
}

// answerSlowly delays the answers to all refreshes by 12 seconds, which is longer than a request waits by default.
func answerSlowly(_ *testing.T, s *scene) func() {
	const took = 12 * time.Second
	s.main.as.Fail(fakeas.Slow(took).For(fakeas.GrantRefresh).Repeat(-1))
	return func() {}
}

// answerAlways returns a failure in which all refreshes get the fault and change nothing.
func answerAlways(f fakeas.Fault) func(*testing.T, *scene) func() {
	return func(_ *testing.T, s *scene) func() {
		s.main.as.Fail(f.For(fakeas.GrantRefresh).Repeat(-1))
		return s.main.as.ClearFaults
	}
}

// answerRetryAfterHour returns a failure in which the next refreshes get 503 with Retry-After 3600.
func answerRetryAfterHour(times int) func(*testing.T, *scene) func() {
	return func(_ *testing.T, s *scene) func() {
		f := fakeas.Unavailable().For(fakeas.GrantRefresh).Repeat(times)
		f.Header["Retry-After"] = "3600"
		s.main.as.Fail(f)
		return func() {}
	}
}

// refuseConnections refuses all connections to the authorization server.
func refuseConnections(t *testing.T, s *scene) func() {
	s.main.link.Refuse()
	return func() { s.main.link.Heal(t) }
}

// answerNever accepts all refreshes and answers none until the end of the failure.
func answerNever(t *testing.T, s *scene) func() {
	f := fakeas.Unavailable().For(fakeas.GrantRefresh).Repeat(-1)
	f.Gate = fakeas.NewGate()
	t.Cleanup(f.Gate.Open)
	s.main.as.Fail(f)
	return func() {
		s.main.as.ClearFaults()
		f.Gate.Open()
	}
}

// wantFewRequests fails the test if the failing server got more than a few probes, apart from the refreshes that were in
// progress when it began to fail.
func wantFewRequests(t *testing.T, s *scene) {
	t.Helper()
	const inProgress, probes = 512, 50
	failed := s.failedRefreshes()
	t.Logf("the failing server got %d refresh requests of %d sessions", failed, len(s.main.users))
	if failed > inProgress+probes {
		t.Errorf("the failing server got %d refresh requests, want at most %d", failed, inProgress+probes)
	}
}

// failedRefreshes returns the number of refresh requests with a fault.
func (s *scene) failedRefreshes() int {
	n := 0
	for _, e := range s.main.as.Log(fakeas.EndpointToken) {
		if e.Spoiled {
			n++
		}
	}
	return n
}

// logInOnce logs one user in, so that Caddy has cached the server's metadata and keys.
func (s *scene) logInOnce(t *testing.T) {
	t.Helper()
	page, err := client.New("", "").Login(t.Context(), s.main.url+"/wanted")
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusOK || page.URL.String() != s.main.url+"/wanted" {
		t.Fatalf("login: got %v, want the page at /wanted", page)
	}
}

// askDuringFailure sends rounds of requests for all sessions for the duration of the failure, at least one round. The sessions
// of the other site must be refreshed as usual.
func (s *scene) askDuringFailure(t *testing.T, lasts time.Duration) {
	t.Helper()
	start := time.Now()
	rounds, left := 0, s.main.users
	for time.Since(start) < lasts || rounds == 0 && lasts > 0 {
		left = s.requestAll(t, left)
		rounds++
		if rounds == 1 && len(s.neighbour.users) > 0 {
			if late := s.requestAll(t, s.neighbour.users); len(late) != 0 {
				t.Errorf("got %d sessions of the other site without a new token, want none", len(late))
			}
		}
		time.Sleep(scenePause)
	}
	if lasts > 0 {
		t.Logf("%d rounds in %v of failure; %d of %d sessions wait for new tokens", rounds, time.Since(start).Round(time.Second), len(left), len(s.main.users))
		if len(left) != len(s.main.users) {
			t.Errorf("got %d refreshed sessions during the failure, want none", len(s.main.users)-len(left))
		}
	}
	s.recoveredAt = time.Now()
}

// scenePause is the pause between two rounds. It leaves processor time to other tests.
const scenePause = 250 * time.Millisecond

// awaitRecovery sends rounds of requests until only waiting sessions have no new token.
func (s *scene) awaitRecovery(t *testing.T, waiting int) {
	t.Helper()
	var reached []time.Duration
	left := s.main.users
	for {
		before := len(left)
		left = s.requestAll(t, left)
		took := time.Since(s.recoveredAt)
		for range before - len(left) {
			reached = append(reached, took)
		}
		if len(left) <= waiting {
			break
		}
		if took > recoveryLimit {
			t.Fatalf("got %d sessions without a new token %v after the recovery, want %d", len(left), took, waiting)
		}
		time.Sleep(scenePause)
	}
	if len(left) != waiting {
		t.Errorf("got %d waiting sessions, want %d", len(left), waiting)
	}
	median := reached[len(reached)/2]
	t.Logf("%d sessions have new tokens: the first refresh was sent after %v, half of the sessions had theirs after %v, the last after %v",
		len(reached), s.firstRefresh().Round(time.Millisecond), median.Round(time.Millisecond), reached[len(reached)-1].Round(time.Millisecond))
}

// firstRefresh returns the time from the recovery to the next refresh request.
func (s *scene) firstRefresh() time.Duration {
	for _, e := range s.main.as.Log(fakeas.EndpointToken) {
		if e.Form.Get("grant_type") == fakeas.GrantRefresh && e.Time.After(s.recoveredAt) {
			return e.Time.Sub(s.recoveredAt)
		}
	}
	return 0
}

// requestAll sends one request per session and returns the sessions without a new token.
func (s *scene) requestAll(t *testing.T, users []*sceneUser) (left []*sceneUser) {
	t.Helper()
	var mu sync.Mutex
	err := forEach(s.concurrency, len(users), func(i int) error {
		v, err := s.ask(t.Context(), users[i], "/api")
		if errors.Is(err, errLater) || err == nil && v.token == users[i].former {
			mu.Lock()
			left = append(left, users[i])
			mu.Unlock()
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// wantIntact fails the test unless each session, except the waiting ones, was refreshed once and can be refreshed again with
// the stored token, and no session has ended.
func (s *scene) wantIntact(t *testing.T, waiting int) {
	t.Helper()
	n := len(s.main.users) - waiting
	stats := s.main.as.Stats()
	if got := stats.Granted[fakeas.GrantRefresh]; got != n {
		t.Errorf("got %d refreshes, want %d", got, n)
	}
	s.main.as.ClearFaults()
	left := s.main.users
	start := time.Now()
	for len(left) > waiting {
		if time.Since(start) > recoveryLimit {
			t.Fatalf("got %d sessions without a second refresh, want %d", len(left), waiting)
		}
		left = s.refreshAll(t, left)
	}
	stats = s.main.as.Stats()
	if got := stats.Granted[fakeas.GrantRefresh]; got != 2*n {
		t.Errorf("got %d refreshes in total, want %d", got, 2*n)
	}
	if stats.Reuses != 0 || len(stats.RedeemedTwice) != 0 || len(stats.Refused) != 0 || stats.MaxConcurrentRefreshes() > 1 {
		t.Errorf("got %d reuses, %d tokens redeemed twice, refusals %v and %d simultaneous refreshes of one session, want none, none, none and 1",
			stats.Reuses, len(stats.RedeemedTwice), stats.Refused, stats.MaxConcurrentRefreshes())
	}
	if got := stats.Requests[fakeas.EndpointAuthorize]; got != 1 {
		t.Errorf("got %d logins, want 1", got)
	}
	_, metrics := s.caddy.Admin(t, http.MethodGet, "/metrics", "")
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "caddy_oauth_session_sessions_ended_total{") && !strings.HasSuffix(line, " 0\n") {
			t.Errorf("got the metric %s, want no ended sessions", line)
		}
	}
	t.Logf("%d refresh requests, %d refreshes, %d reuses, %d sessions lost", stats.Grants[fakeas.GrantRefresh],
		stats.Granted[fakeas.GrantRefresh], stats.Reuses, len(left)-waiting)
}

// refreshAll sends one request per session that needs a new token, and returns the sessions that did not get one.
func (s *scene) refreshAll(t *testing.T, users []*sceneUser) (left []*sceneUser) {
	t.Helper()
	var mu sync.Mutex
	err := forEach(min(s.concurrency, 100), len(users), func(i int) error {
		_, err := s.ask(t.Context(), users[i], newTokenPath)
		if errors.Is(err, errLater) {
			mu.Lock()
			left = append(left, users[i])
			mu.Unlock()
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clip(left)
}
