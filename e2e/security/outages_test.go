package security

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/faultproxy"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// outageTokenLife is the life of the access tokens in TestS93OutageEndsNoSession, in
	// seconds. A refresh is due after 8.4 to 10.2 s, and the token is used until 11.4 s.
	outageTokenLife  = 12
	outageUsableLife = 11400 * time.Millisecond
	// outageEnd is the end of the outage, counted from the login.
	outageEnd = 16 * time.Second
)

// A refreshOutage is one way in which an authorization server fails to refresh.
type refreshOutage struct {
	*variant
	begin func()
	end   func(t *testing.T)
	// perStep is the number of token requests in one step of the back-off. It is two if
	// the answer is lost: then the site tries once more at once.
	perStep int
	// gap is the pause after the first step. 0: the server's log does not show the
	// requests.
	gap time.Duration
	// doubles is true if each pause is twice the former one.
	doubles bool
}

// TestS93OutageEndsNoSession: during an outage of the authorization server a valid token
// is used, and a session with an expired one waits with 503. No session ends.
func TestS93OutageEndsNoSession(t *testing.T) {
	w := newWorld(t, plan{mostlyWaits: true})
	all := w.refreshOutages(t)
	var running sync.WaitGroup
	for _, tr := range all {
		running.Go(func() { tr.run(t) })
	}
	running.Wait()
	for _, tr := range all {
		tr.checkBackoff(t)
	}
}

func (w *world) refreshOutages(t *testing.T) []*refreshOutage {
	t.Helper()
	var all []*refreshOutage
	for name, fault := range map[string]fakeas.Fault{
		"error-500": fakeas.Answer(http.StatusInternalServerError, "text/plain", "sorry"),
		"too-many":  fakeas.TooManyRequests(3 * time.Second),
		"html":      fakeas.Answer(http.StatusOK, "text/html", "<html>maintenance</html>"),
		"reset":     fakeas.LoseRequest(),
		"timeout":   {Delay: time.Minute},
	} {
		tr := &refreshOutage{variant: &variant{name: "trouble-" + name, options: "refresh_timeout 1s"}, perStep: 1, gap: time.Second, doubles: true}
		switch name {
		case "too-many":
			tr.gap, tr.doubles = 3*time.Second, false
		case "reset":
			tr.perStep = 2
		case "timeout":
			tr.gap = 0
		}
		tr.begin = func() { tr.idp.Fail(fault.For(fakeas.GrantRefresh).Repeat(-1)) }
		tr.end = func(*testing.T) { tr.idp.ClearFaults() }
		all = append(all, tr)
	}
	idp := fakeas.Start(t, fakeas.Options{})
	idp.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
	proxy := faultproxy.Start(t, strings.TrimPrefix(idp.URL, "http://"))
	all = append(all, &refreshOutage{
		variant: &variant{name: "trouble-refused", options: "refresh_timeout 1s\n\ttoken_endpoint http://" + proxy.Addr() + "/token", idp: idp},
		begin:   proxy.Refuse, end: func(t *testing.T) { proxy.Heal(t) },
	})
	var variants []*variant
	for _, tr := range all {
		variants = append(variants, tr.variant)
	}
	w.addVariants(t, variants...)
	return all
}

// run sends requests from before a refresh is due until after the token has expired. Then
// it ends the outage and waits for the recovery.
func (tr *refreshOutage) run(t *testing.T) {
	announceLifetimes(tr.idp, outageTokenLife, 300)
	b := tr.w.newBrowser(tr.w.instances[0], true)
	before := time.Now()
	page, err := b.Visit(t.Context(), tr.url+"/first")
	if err != nil || page.Status != http.StatusOK {
		t.Errorf("%s: login: got %v, %v, want 200", tr.name, page, err)
		return
	}
	after := time.Now()
	tr.begin()
	n := amount(200, 1000)
	every := time.NewTicker((outageEnd - 7*time.Second) / time.Duration(n))
	defer every.Stop()
	sleep(t, time.Until(before.Add(7*time.Second)))
	var running sync.WaitGroup
	// On a busy machine the second step may come later than the end of the outage.
	for time.Since(before) < outageEnd || tr.gap > 0 && len(tr.refreshLog()) < 2*tr.perStep && time.Since(before) < waitLimit {
		<-every.C
		running.Go(func() {
			start := time.Now()
			resp, err := b.Fetch(t.Context(), http.MethodGet, tr.url+"/x", "")
			if err != nil {
				t.Errorf("%s: %v", tr.name, err)
				return
			}
			switch _, reached := appAnswer(resp); {
			case time.Since(before) < outageUsableLife && (resp.Status != http.StatusOK || !reached):
				t.Errorf("%s, valid token: got %v, want 200", tr.name, resp)
			case start.Sub(after) > outageTokenLife*time.Second && (resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || reached):
				t.Errorf("%s, expired token: got %v, want 503 with Retry-After", tr.name, resp)
			}
		})
	}
	running.Wait()
	tr.end(t)
	eventually(t, "recovery from "+tr.name, func() bool {
		resp, err := b.Fetch(t.Context(), http.MethodGet, tr.url+"/x", "")
		return err == nil && resp.Status == http.StatusOK
	})
}

// refreshLog returns the requests to refresh that the server has seen.
func (tr *refreshOutage) refreshLog() []fakeas.Entry {
	return slices.DeleteFunc(tr.idp.Log(fakeas.EndpointToken), func(e fakeas.Entry) bool {
		return e.Form.Get("grant_type") != fakeas.GrantRefresh
	})
}

// checkBackoff checks the pauses between the refreshes.
func (tr *refreshOutage) checkBackoff(t *testing.T) {
	t.Helper()
	if tr.gap == 0 {
		if n := tr.refreshes(); n > 4 {
			t.Errorf("%s: got %d refreshes, want at most 4", tr.name, n)
		}
		return
	}
	log := tr.refreshLog()
	if len(log) < 2*tr.perStep {
		t.Errorf("%s: got %d refreshes, want at least two steps", tr.name, len(log))
	}
	pause := tr.gap
	for i := tr.perStep; i < len(log); i += tr.perStep {
		if got := log[i].Time.Sub(log[i-tr.perStep].Time); got < pause {
			t.Errorf("%s: request %d: got a pause of %v, want at least %v", tr.name, i+1, got, pause)
		}
		if tr.doubles {
			pause = min(2*pause, 30*time.Second)
		}
	}
}

// setRedisWritable makes Redis accept or refuse writes.
func (w *world) setRedisWritable(t testing.TB, yes bool) {
	t.Helper()
	replicas := "1"
	if yes {
		replicas = "0"
	}
	w.redis.Do(t, "CONFIG", "SET", "min-replicas-to-write", replicas)
}

// TestS96RotatedTokenSurvivesAStoreFailure: Redis refuses writes just when a refresh token
// has been rotated. The session continues: the instance with the new tokens keeps them
// until it can write them, and no other instance presents the old one.
func TestS96RotatedTokenSurvivesAStoreFailure(t *testing.T) {
	w := sharedRedis(t)
	atCleanup(t, func(t testing.TB) { w.setRedisWritable(t, true) })
	b, expired := w.loginWithShortToken(t)
	issued := issuedTokens(w.idp, fakeas.KindRefresh, fakeas.DefaultUser)
	spent := issued[len(issued)-1]
	rotated, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.idp.Set(func(k *fakeas.Knobs) {
		k.Mutate = func(grant string, _ map[string]any) {
			if grant == fakeas.GrantRefresh {
				once.Do(func() {
					close(rotated)
					<-proceed
				})
			}
		}
	})
	unwritten := w.instances[0].counter(t, "caddy_oauth_session_unwritten_total")
	reuses := w.idp.Stats().Reuses
	sleep(t, expired)
	answers := make(chan *client.Response, 1)
	go func() {
		resp, err := b.trySend(t.Context(), http.MethodGet, "/during", "", scriptHeaders...)
		if err != nil {
			t.Error(err)
		}
		answers <- resp
	}()
	<-rotated
	w.setRedisWritable(t, false)
	close(proceed)
	if resp := <-answers; resp == nil || resp.Status != http.StatusOK && resp.Status != http.StatusServiceUnavailable {
		t.Errorf("request during the failure: got %v, want 200 or 503", resp)
	}
	second := b.at(1)
	for range 5 {
		for _, each := range []*browser{b, second} {
			if resp := each.xhr(t, http.MethodGet, "/x"); resp.Status != http.StatusOK && resp.Status != http.StatusServiceUnavailable {
				t.Errorf("during the failure: got %v, want 200 or 503", resp)
			}
		}
	}
	eventually(t, "new token at the instance that has it", func() bool { return b.xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
	if got := w.instances[0].counter(t, "caddy_oauth_session_unwritten_total"); got <= unwritten {
		t.Error("the unwritten tokens are not counted")
	}
	w.setRedisWritable(t, true)
	eventually(t, "new token at the other instance", func() bool { return second.xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
	stats := w.idp.Stats()
	if n := stats.Presented[spent]; n != 1 || stats.Reuses != reuses {
		t.Errorf("the spent refresh token was presented %d times, want 1; %d reuses, want none", n, stats.Reuses-reuses)
	}
}

// counter returns the sum of a metric over its series.
func (in *instance) counter(t testing.TB, name string) float64 {
	t.Helper()
	_, metrics := in.Admin(t, http.MethodGet, "/metrics", "")
	sum := 0.0
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, name+"{") {
			value, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += value
		}
	}
	return sum
}
