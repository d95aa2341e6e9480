package security

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/faultproxy"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// troubledLife is the life of the access tokens in TestS93ServerTrouble, in
	// seconds: a refresh is due after 8.4 to 10.2 of them, and the token is not
	// used any more from 11.4 on.
	outageTokenLife  = 12
	outageUsableLife = 11400 * time.Millisecond
	// troubledEnd is when the trouble ends.
	outageEnd = 16 * time.Second
)

// A trouble is one way for an authorization server not to refresh.
type refreshOutage struct {
	*variant
	begin func()
	end   func(t *testing.T)
	// perStep is how many requests one step of the back-off may cost: where the
	// answer was lost a refresh is tried once more.
	perStep int
	// gap is the pause after the first step; 0: the requests are not logged.
	gap time.Duration
	// doubles: each pause is twice as long as the one before.
	doubles bool
}

// TestS93ServerTrouble: while the authorization server has trouble, tokens that
// are good are used, a session without one waits, and nobody is logged out.
func TestS93ServerTrouble(t *testing.T) {
	w := shared(t)
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

// suffer sends requests from before a refresh is due until long after the
// token's end, and then demands that all is well again.
func (tr *refreshOutage) run(t *testing.T) {
	announceLifetimes(tr.idp, outageTokenLife, 300)
	b := tr.w.newBrowser(tr.w.instances[0], true)
	before := time.Now()
	page, err := b.Visit(t.Context(), tr.url+"/first")
	if err != nil || page.Status != http.StatusOK {
		t.Errorf("%s: the login ended with %v, %v", tr.name, page, err)
		return
	}
	after := time.Now()
	tr.begin()
	n := amount(200, 1000)
	every := time.NewTicker((outageEnd - 7*time.Second) / time.Duration(n))
	defer every.Stop()
	sleep(t, time.Until(before.Add(7*time.Second)))
	var running sync.WaitGroup
	for time.Since(before) < outageEnd {
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
				t.Errorf("%s, token good: %v", tr.name, resp)
			case start.Sub(after) > outageTokenLife*time.Second && (resp.Status != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || reached):
				t.Errorf("%s, token expired: %v", tr.name, resp)
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

// steps looks at when the refreshes came.
func (tr *refreshOutage) checkBackoff(t *testing.T) {
	t.Helper()
	if tr.gap == 0 {
		if n := tr.refreshes(); n > 4 {
			t.Errorf("%s: %d refreshes", tr.name, n)
		}
		return
	}
	log := slices.DeleteFunc(tr.idp.Log(fakeas.EndpointToken), func(e fakeas.Entry) bool {
		return e.Form.Get("grant_type") != fakeas.GrantRefresh
	})
	if len(log) < 2*tr.perStep {
		t.Errorf("%s: only %d refreshes", tr.name, len(log))
	}
	pause := tr.gap
	for i := tr.perStep; i < len(log); i += tr.perStep {
		if got := log[i].Time.Sub(log[i-tr.perStep].Time); got < pause {
			t.Errorf("%s: request %d came %v after the last step, want %v at least", tr.name, i+1, got, pause)
		}
		if tr.doubles {
			pause = min(2*pause, 30*time.Second)
		}
	}
}

// TestS96StoreFailsAfterRotation: Redis takes no more writes just when a
// refresh token has been rotated. Unlike in the list the session lives on: the
// instance that has the new tokens keeps them (promise 5 of the design), and no
// other presents the old one.
func TestS96StoreFailsAfterRotation(t *testing.T) {
	w := sharedRedis(t)
	writable := func(t testing.TB, yes bool) {
		t.Helper()
		replicas := "1"
		if yes {
			replicas = "0"
		}
		w.redis.Do(t, "CONFIG", "SET", "min-replicas-to-write", replicas)
	}
	atCleanup(t, func(t testing.TB) { writable(t, true) })
	b, expired := w.loginWithShortToken(t)
	issued := issuedTokens(w.idp, fakeas.KindRefresh, fakeas.DefaultUser)
	spent := issued[len(issued)-1]
	rotated, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.idp.Set(func(k *fakeas.Knobs) {
		k.Mutate = func(grant string, _ map[string]any) {
			if grant == fakeas.GrantRefresh {
				once.Do(func() {
					close(rotated)
					<-goOn
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
	writable(t, false)
	close(goOn)
	if resp := <-answers; resp == nil || resp.Status != http.StatusOK && resp.Status != http.StatusServiceUnavailable {
		t.Errorf("the request under way: %v", resp)
	}
	second := b.at(1)
	for range 5 {
		for _, side := range []*browser{b, second} {
			if resp := side.xhr(t, http.MethodGet, "/x"); resp.Status != http.StatusOK && resp.Status != http.StatusServiceUnavailable {
				t.Errorf("while nothing can be written: %v", resp)
			}
		}
	}
	eventually(t, "the new token at the instance that has it", func() bool { return b.xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
	if got := w.instances[0].counter(t, "caddy_oauth_session_unwritten_total"); got <= unwritten {
		t.Error("that the tokens were not written is not counted")
	}
	writable(t, true)
	eventually(t, "the new token at the other instance", func() bool { return second.xhr(t, http.MethodGet, "/x").Status == http.StatusOK })
	stats := w.idp.Stats()
	if n := stats.Presented[spent]; n != 1 || stats.Reuses != reuses {
		t.Errorf("the spent refresh token was presented %d times; %d reuses", n, stats.Reuses-reuses)
	}
}

// counter is metric for one that may not have been counted yet.
func (in *instance) counter(t testing.TB, name string) float64 {
	t.Helper()
	if _, metrics := in.Admin(t, http.MethodGet, "/metrics", ""); !strings.Contains(metrics, "\n"+name+" ") {
		return 0
	}
	return in.metric(t, name)
}
