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

// recoveryLimit bounds the time from the recovery of the authorization server until every session works: the longest wait
// that a request may be told, and again as much for a slow server and a slow machine.
const recoveryLimit = 2 * longestWait

// TestScenes has a server in trouble while many sessions are due: none is lost, no refresh token is sent twice, each
// session is refreshed once, and all work soon after the trouble is over. With FULL=1 there are more sessions and the
// trouble lasts longer.
func TestScenes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// quick and full are what the scene is made of, and how long the trouble lasts.
		quick, full sceneSize
		expired     func(i int) bool
		neighbours  int
		// trouble begins the trouble, and returns the function that ends it.
		trouble func(t *testing.T, s *scene) (end func())
		// after checks what belongs to this trouble, and inTheEnd does so when all sessions were refreshed once more.
		after, inTheEnd func(t *testing.T, s *scene)
		// waiting is how many sessions have to wait for the longest time. A quick run does not wait for them.
		waiting int
		// fullOnly: the trouble takes too long for a quick run.
		fullOnly bool
	}{
		{
			name: "keys that the cache does not have", quick: sceneSize{sessions: 100}, full: sceneSize{sessions: 1000},
			expired: everySecond, trouble: rotateKey, inTheEnd: wantNewClaims,
		},
		{
			name: "keys that are published later", quick: sceneSize{sessions: 100}, full: sceneSize{sessions: 1000},
			expired: everySecond, trouble: rotateUnpublishedKey, after: wantFormerClaims,
		},
		{
			name: "answers after 12 seconds", quick: sceneSize{sessions: 60}, full: sceneSize{sessions: 1000},
			expired: everySecond, trouble: answerSlowly,
		},
		{
			name: "HTML with status 400", quick: sceneSize{sessions: 100, lasts: 2 * time.Second},
			full:    sceneSize{sessions: 1000, lasts: 2 * time.Second},
			expired: everySecond, trouble: answerAlways(fakeas.Answer(http.StatusBadRequest, "text/html", "<html><h1>400 Bad Request</h1></html>")),
		},
		{
			name: "Retry-After 3600 once", quick: sceneSize{sessions: 100}, full: sceneSize{sessions: 1000},
			expired: everySession, trouble: answerRetryAfterHour(1), waiting: 1,
		},
		{
			name: "Retry-After 3600 ten times", full: sceneSize{sessions: 1000},
			expired: everySession, trouble: answerRetryAfterHour(10), fullOnly: true,
		},
		{
			name: "down", quick: sceneSize{sessions: 300, lasts: 3 * time.Second},
			full:    sceneSize{sessions: 20_000, lasts: time.Minute},
			expired: everySecond, neighbours: 50, trouble: refuseConnections,
		},
		{
			name: "status 503", full: sceneSize{sessions: 5000, lasts: time.Minute},
			expired: everySecond, neighbours: 50, trouble: answerAlways(fakeas.Unavailable()), after: wantFewRequests, fullOnly: true,
		},
		{
			name: "no answer at all", full: sceneSize{sessions: 1000, lasts: time.Minute},
			expired: everySecond, neighbours: 50, trouble: answerNever, after: wantFewRequests, fullOnly: true,
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
			end := tc.trouble(t, s)
			s.runTrouble(t, size.lasts)
			end()
			s.awaitRecovery(t, waiting)
			if tc.after != nil {
				tc.after(t, s)
			}
			s.wantIntact(t, waiting)
			if tc.inTheEnd != nil {
				tc.inTheEnd(t, s)
			}
		})
	}
}

// A sceneSize is the number of sessions, and how long the trouble lasts after the first requests.
type sceneSize struct {
	sessions int
	lasts    time.Duration
}

// rotatedKey signs with a new key, which is published at once.
func rotateKey(_ *testing.T, s *scene) func() {
	s.main.as.RotateKey()
	return func() {}
}

// unpublishedKey signs with a new key while a cache in front of the key set still has the former.
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

// wantNewClaims demands that all ID tokens were verified with the new key. A first refresh on a busy machine may have gone
// on without them, when the keys took too long.
func wantNewClaims(t *testing.T, s *scene) {
	t.Helper()
	if n := s.main.as.Stats().Requests[fakeas.EndpointJWKS]; n < 2 {
		t.Errorf("the keys were fetched %d times, want again for the new one", n)
	}
	s.wantClaims(t, func(email string) bool { return email != formerEmail })
}

// wantFormerClaims demands that ID tokens which nobody could verify changed nothing.
func wantFormerClaims(t *testing.T, s *scene) {
	t.Helper()
	s.wantClaims(t, func(email string) bool { return email == formerEmail })
	s.main.as.ClearFaults()
}

func (s *scene) wantClaims(t *testing.T, good func(email string) bool) {
	t.Helper()
	wrong := 0
	for _, g := range s.main.users {
		v, err := s.ask(t.Context(), g, "/api")
		if err != nil {
			t.Fatal(err)
		}
		if !good(v.email) {
			wrong++
		}
	}
	if wrong != 0 {
		t.Errorf("%d of %d sessions have the wrong claims", wrong, len(s.main.users))
	}
}

// slowAnswers has each refresh answered after 12 seconds: longer than a request waits by default.
func answerSlowly(_ *testing.T, s *scene) func() {
	const took = 12 * time.Second
	s.main.as.Fail(fakeas.Slow(took).For(fakeas.GrantRefresh).Repeat(-1))
	return func() {}
}

// always answers all refreshes in the same way, without any effect on the tokens.
func answerAlways(f fakeas.Fault) func(*testing.T, *scene) func() {
	return func(_ *testing.T, s *scene) func() {
		s.main.as.Fail(f.For(fakeas.GrantRefresh).Repeat(-1))
		return s.main.as.ClearFaults
	}
}

func answerRetryAfterHour(times int) func(*testing.T, *scene) func() {
	return func(_ *testing.T, s *scene) func() {
		f := fakeas.Unavailable().For(fakeas.GrantRefresh).Repeat(times)
		f.Header["Retry-After"] = "3600"
		s.main.as.Fail(f)
		return func() {}
	}
}

// down refuses all connections to the authorization server.
func refuseConnections(t *testing.T, s *scene) func() {
	s.main.link.Refuse()
	return func() { s.main.link.Heal(t) }
}

// silent takes all requests and answers none until the trouble is over.
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

// wantFewRequests demands that a server in trouble got a few probes, after those refreshes that were under way at first.
func wantFewRequests(t *testing.T, s *scene) {
	t.Helper()
	const atFirst, probes = 512, 50
	spoiled := s.spoiled()
	t.Logf("the server got %d refresh requests while it was in trouble, of %d sessions", spoiled, len(s.main.users))
	if spoiled > atFirst+probes {
		t.Errorf("the server got %d refresh requests while it was in trouble, want %d at most", spoiled, atFirst+probes)
	}
}

// spoiled counts the refresh requests that a fault fell on.
func (s *scene) spoiled() int {
	n := 0
	for _, e := range s.main.as.Log(fakeas.EndpointToken) {
		if e.Spoiled {
			n++
		}
	}
	return n
}

// warm has somebody log in, so that metadata and keys are in the cache.
func (s *scene) logInOnce(t *testing.T) {
	t.Helper()
	page, err := client.New("", "").Login(t.Context(), s.main.url+"/wanted")
	if err != nil {
		t.Fatal(err)
	}
	if page.Status != http.StatusOK || page.URL.String() != s.main.url+"/wanted" {
		t.Fatalf("the login ended with %v", page)
	}
}

// endure asks for all sessions during the trouble, at least once and for as long as it lasts. The neighbours' sessions are
// refreshed meanwhile as if there were none.
func (s *scene) runTrouble(t *testing.T, lasts time.Duration) {
	t.Helper()
	begun := time.Now()
	rounds, left := 0, s.main.users
	for time.Since(begun) < lasts || rounds == 0 && lasts > 0 {
		left = s.requestAll(t, left)
		rounds++
		if rounds == 1 && len(s.neighbour.users) > 0 {
			if late := s.requestAll(t, s.neighbour.users); len(late) != 0 {
				t.Errorf("%d sessions of the other site had to wait for the trouble of this one", len(late))
			}
		}
		time.Sleep(sceneRest)
	}
	if lasts > 0 {
		t.Logf("%d rounds in %v of trouble; %d of %d sessions wait for new tokens", rounds, time.Since(begun).Round(time.Second), len(left), len(s.main.users))
		if len(left) != len(s.main.users) {
			t.Errorf("%d sessions were refreshed by a server that was in trouble: the scene shows nothing", len(s.main.users)-len(left))
		}
	}
	s.recoveredAt = time.Now()
}

// sceneRest is the pause between rounds, which leaves the processor to others.
const sceneRest = 250 * time.Millisecond

// recover asks for all sessions until they have new tokens, but for those that have to wait for the longest time.
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
			t.Fatalf("%d sessions do not work %v after the trouble", len(left), took)
		}
		time.Sleep(sceneRest)
	}
	if len(left) != waiting {
		t.Errorf("%d sessions wait, want %d", len(left), waiting)
	}
	median := reached[len(reached)/2]
	t.Logf("%d sessions have new tokens: the first refresh was sent after %v, half of the sessions had theirs after %v, the last after %v",
		len(reached), s.firstRefresh().Round(time.Millisecond), median.Round(time.Millisecond), reached[len(reached)-1].Round(time.Millisecond))
}

// firstRefresh is how long after the trouble the authorization server got a refresh request.
func (s *scene) firstRefresh() time.Duration {
	for _, e := range s.main.as.Log(fakeas.EndpointToken) {
		if e.Form.Get("grant_type") == fakeas.GrantRefresh && e.Time.After(s.recoveredAt) {
			return e.Time.Sub(s.recoveredAt)
		}
	}
	return 0
}

// round asks once for each session, and returns those that do not have a new token yet.
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

// intact demands that each session that does not wait was refreshed once, and can be refreshed again: with the token that
// the store has. None has ended.
func (s *scene) wantIntact(t *testing.T, waiting int) {
	t.Helper()
	n := len(s.main.users) - waiting
	stats := s.main.as.Stats()
	if got := stats.Granted[fakeas.GrantRefresh]; got != n {
		t.Errorf("got %d refreshes of %d sessions", got, n)
	}
	s.main.as.ClearFaults()
	left := s.main.users
	begun := time.Now()
	for len(left) > waiting {
		if time.Since(begun) > recoveryLimit {
			t.Fatalf("%d sessions cannot be refreshed again", len(left))
		}
		left = s.refreshAll(t, left)
	}
	stats = s.main.as.Stats()
	if got := stats.Granted[fakeas.GrantRefresh]; got != 2*n {
		t.Errorf("got %d refreshes of %d sessions in the end", got, n)
	}
	if stats.Reuses != 0 || len(stats.RedeemedTwice) != 0 || len(stats.Refused) != 0 || stats.MaxConcurrentRefreshes() > 1 {
		t.Errorf("spent tokens that came back: %d; redeemed twice: %d; refused: %v; refreshes of one session at once: %d",
			stats.Reuses, len(stats.RedeemedTwice), stats.Refused, stats.MaxConcurrentRefreshes())
	}
	if got := stats.Requests[fakeas.EndpointAuthorize]; got != 1 {
		t.Errorf("got %d logins, want the first one", got)
	}
	_, metrics := s.caddy.Admin(t, http.MethodGet, "/metrics", "")
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "caddy_oauth_session_sessions_ended_total{") {
			t.Errorf("sessions have ended: %s", line)
		}
	}
	t.Logf("%d refresh requests, %d refreshes, %d reuses, %d sessions lost", stats.Grants[fakeas.GrantRefresh],
		stats.Granted[fakeas.GrantRefresh], stats.Reuses, len(left)-waiting)
}

// renew has each session refreshed on demand, and returns those for which it did not work yet.
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
