package caddymodule

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// readCounters returns the module's counters in the registry of the running
// configuration, by names such as "logins_total result=completed".
func readCounters(t *testing.T) map[string]float64 {
	t.Helper()
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		name, found := strings.CutPrefix(family.GetName(), "caddy_oauth_session_")
		if !found {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetCounter() == nil {
				continue
			}
			key := name
			for _, label := range m.GetLabel() {
				if label.GetName() == siteLabelName {
					continue // the tests have one site
				}
				key += " " + label.GetName() + "=" + label.GetValue()
			}
			counts[key] = m.GetCounter().GetValue()
		}
	}
	return counts
}

// increments returns the counters that changed, with the difference.
func increments(before, after map[string]float64) map[string]float64 {
	diff := map[string]float64{}
	for key, n := range after {
		if n != before[key] {
			diff[key] = n - before[key]
		}
	}
	return diff
}

func TestLoginsRefusalsAndEndsAreCounted(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	b := newBrowser(t, w.origin)
	signedIn := func() *browser {
		b := newBrowser(t, w.origin)
		b.login("/")
		return b
	}
	for _, step := range []struct {
		name string
		do   func()
		want map[string]float64
	}{
		{"script without a session", func() { b.fetch("/") }, map[string]float64{"refusals_total code=login_required": 1}},
		{"unknown endpoint", func() { b.fetch("/oauth2/nothing") }, map[string]float64{"refusals_total code=not_found": 1}},
		{"login", func() { b.login("/") }, map[string]float64{"logins_total result=completed": 1}},
		{"request with a session", func() { b.open("/") }, map[string]float64{}},
		{"login that takes two attempts", func() {
			w.as.Fail(fakeas.OAuthError("temporarily_unavailable").At(fakeas.EndpointAuthorize))
			signedIn()
		}, map[string]float64{"logins_total result=restarted": 1, "logins_total result=completed": 1}},
		{"login that is refused", func() {
			w.as.Fail(fakeas.OAuthError("access_denied").At(fakeas.EndpointAuthorize))
			newBrowser(t, w.origin).visit("/")
		}, map[string]float64{"logins_total result=access_denied": 1, "refusals_total code=access_denied": 1}},
		{"callback without a login", func() { newBrowser(t, w.origin).open("/oauth2/callback?code=x&state=x") },
			map[string]float64{"logins_total result=login_expired": 1, "refusals_total code=login_expired": 1}},
		{"unsafe request from another site", func() {
			b.send(http.MethodPost, "/", http.Header{"Sec-Fetch-Site": {"cross-site"}})
		}, map[string]float64{"refusals_total code=cross_origin": 1}},
		{"logout", func() { b.send(http.MethodPost, "/oauth2/logout", b.sameOrigin()) }, map[string]float64{"sessions_ended_total reason=logout": 1}},
		{"login in place of another", func() {
			b := signedIn()
			b.visit("/oauth2/login")
		}, map[string]float64{"logins_total result=completed": 2, "sessions_ended_total reason=replaced_by_login": 1}},
	} {
		before := readCounters(t)
		step.do()
		if diff := cmp.Diff(step.want, increments(before, readCounters(t))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// A request with an expired token waits for the refresh, so the counters are complete
// when the response arrives.
func TestRefreshOutcomesAreCounted(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	w.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"expires_in": 0.000001} })
	for _, c := range []struct {
		answer *fakeas.Fault
		status int
		want   map[string]float64
	}{
		{nil, 200, map[string]float64{"refreshes_total outcome=refreshed": 1}},
		{refreshError("invalid_grant"), 401, map[string]float64{
			"refreshes_total outcome=rejected": 1, "sessions_ended_total reason=refresh_rejected": 1, "refusals_total code=login_required": 1,
		}},
		{refreshError("invalid_request"), 401, map[string]float64{
			"refreshes_total outcome=unclear": 2, "sessions_ended_total reason=refused_unclear": 1, "refusals_total code=login_required": 1,
		}},
		{refreshError("temporarily_unavailable"), 503, map[string]float64{"refreshes_total outcome=unavailable": 1, "refusals_total code=temporarily_unavailable": 1}},
	} {
		b := newBrowser(t, w.origin)
		b.open(b.startLogin("/"))
		if c.answer != nil {
			w.as.Fail(c.answer.Repeat(-1))
		}
		before := readCounters(t)
		if a := b.fetch("/"); a.status != c.status {
			t.Errorf("got status %d, want %d", a.status, c.status)
		}
		if diff := cmp.Diff(c.want, increments(before, readCounters(t))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		w.as.ClearFaults()
	}
}

func refreshError(code string) *fakeas.Fault {
	f := fakeas.OAuthError(code).For(fakeas.GrantRefresh)
	return &f
}

func TestEveryEventHasItsCounter(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	for want, e := range map[string]keeper.Event{
		"refreshes_total outcome=refreshed":             {Kind: keeper.EventRefreshed},
		"refreshes_total outcome=rejected":              {Kind: keeper.EventRefreshFailed, Outcome: keeper.Rejected},
		"refreshes_total outcome=reuse_suspected":       {Kind: keeper.EventRefreshFailed, Outcome: keeper.Rejected, ReuseSuspected: true},
		"refreshes_total outcome=unclear":               {Kind: keeper.EventRefreshFailed, Outcome: keeper.Unclear},
		"refreshes_total outcome=misconfigured":         {Kind: keeper.EventRefreshFailed, Outcome: keeper.Misconfigured},
		"refreshes_total outcome=unavailable":           {Kind: keeper.EventRefreshFailed, Outcome: keeper.Unavailable},
		"refreshes_total outcome=unanswered":            {Kind: keeper.EventRefreshFailed, Outcome: keeper.Unanswered},
		"refreshes_total outcome=malformed":             {Kind: keeper.EventRefreshFailed, Outcome: keeper.Malformed},
		"refreshes_total outcome=timed_out":             {Kind: keeper.EventRefreshFailed, Outcome: keeper.TimedOut},
		"sessions_ended_total reason=idle_timeout":      {Kind: keeper.EventEnded, Reason: keeper.EndIdle},
		"sessions_ended_total reason=max_lifetime":      {Kind: keeper.EventEnded, Reason: keeper.EndLifetime},
		"sessions_ended_total reason=session_expiry":    {Kind: keeper.EventEnded, Reason: keeper.EndSessionExpiry},
		"sessions_ended_total reason=refresh_expired":   {Kind: keeper.EventEnded, Reason: keeper.EndRefreshExpired},
		"sessions_ended_total reason=refused_unclear":   {Kind: keeper.EventEnded, Reason: keeper.EndRefusedUnclear},
		"sessions_ended_total reason=no_refresh_token":  {Kind: keeper.EventEnded, Reason: keeper.EndNoRefreshToken},
		"sessions_ended_total reason=identity_changed":  {Kind: keeper.EventEnded, Reason: keeper.EndIdentityChanged},
		"sessions_ended_total reason=refresh_rejected":  {Kind: keeper.EventEnded, Reason: keeper.EndRejected},
		"sessions_ended_total reason=logout":            {Kind: keeper.EventEnded, Reason: keeper.EndLogout},
		"sessions_ended_total reason=replaced_by_login": {Kind: keeper.EventEnded, Reason: keeper.EndReplaced},
		"unwritten_total":                               {Kind: keeper.EventUnwritten},
		"discarded_total":                               {Kind: keeper.EventDiscarded},
		"unreadable_total part=commitment":              {Kind: keeper.EventUnreadable, Err: &seal.UnreadableError{Part: seal.PartCommitment}},
	} {
		before := readCounters(t)
		siteMetrics{"localhost"}.event(e)
		if diff := cmp.Diff(map[string]float64{want: 1}, increments(before, readCounters(t))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want, diff)
		}
	}
}

// The registry of a new configuration starts with the counts of the old one, also with
// several sites and after failed reloads.
func TestReloadKeepsCounters(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	b.fetch("/oauth2/nothing")
	want := readCounters(t)
	if want["logins_total result=completed"] == 0 || want["refusals_total code=not_found"] == 0 {
		t.Fatalf("got counters %v, want a login and a refusal", want)
	}
	two := site("idle_timeout 1h", "") + strings.Replace(site("", ""), "http://localhost", "http://b.localhost", 1)
	for _, text := range []string{site("idle_timeout 1h", ""), two, site("", "")} {
		w.load(text)
		if diff := cmp.Diff(want, readCounters(t)); diff != "" {
			t.Errorf("after a reload (-before +after):\n%s", diff)
		}
	}
	if err := w.tryLoad(site("trusted_ca /nonexistent/ca.pem", "")); err == nil {
		t.Fatal("got no error for an invalid configuration")
	}
	b.fetch("/oauth2/nothing")
	if diff := cmp.Diff(map[string]float64{"refusals_total code=not_found": 1}, increments(want, readCounters(t))); diff != "" {
		t.Errorf("after reloads and one refusal (-want +got):\n%s", diff)
	}
}

// Labels hold only constants, so text from clients and servers cannot appear in them.
func TestMetricLabelsHoldNoSecrets(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	w.as.Fail(fakeas.OAuthError("an_error_of_their_own").At(fakeas.EndpointAuthorize))
	newBrowser(t, w.origin).visit("/")
	b.fetch("/oauth2/an_address_of_their_own")
	for key := range readCounters(t) {
		for _, secret := range append(w.as.Secrets(), "of_their_own", "alice", testSecret) {
			if strings.Contains(key, secret) {
				t.Errorf("got %.12q in the counter %q", secret, key)
			}
		}
	}
}

// sameOrigin returns the headers of a script of the site.
func (b *browser) sameOrigin() http.Header {
	return http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}, "Origin": {b.site}}
}

// gathered returns the series of the running configuration by name and labels.
func gathered(t *testing.T) map[string]float64 {
	t.Helper()
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, family := range families {
		name, found := strings.CutPrefix(family.GetName(), "caddy_oauth_session_")
		if !found {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			key := name + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.GetHistogram() != nil:
				series[key] = float64(m.GetHistogram().GetSampleCount())
			case m.GetGauge() != nil:
				series[key] = m.GetGauge().GetValue()
			default:
				series[key] = m.GetCounter().GetValue()
			}
		}
	}
	return series
}

// awaitSeries waits until a series has a value.
func awaitSeries(t *testing.T, key string, want float64) {
	t.Helper()
	var got float64
	var ok bool
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got, ok = gathered(t)[key]; ok && got == want {
			return
		}
	}
	t.Fatalf("%s: got %v (there: %v), want %v", key, got, ok, want)
}

// TestSeriesExistBeforeTheirFirstEvent, for each site, and are gone with the site.
func TestSeriesExistBeforeTheirFirstEvent(t *testing.T) {
	w := newWorld(t)
	other := strings.Replace(site("", ""), "http://localhost:{$PORT}", "http://other.localhost:{$PORT}", 1)
	w.load(site("", "") + other)
	series := gathered(t)
	for _, of := range []string{"localhost", "other.localhost"} {
		for _, key := range []string{
			"logins_total{result=completed,site=%}", "logins_total{result=login_loop,site=%}", "refusals_total{code=forbidden,site=%}",
			"refreshes_total{outcome=reuse_suspected,site=%}", "sessions_ended_total{reason=revoked,site=%}", "unwritten_total{site=%}",
			"unreadable_total{part=hot,site=%}", "refresh_wait_seconds{site=%}",
		} {
			if got, ok := series[strings.Replace(key, "%", of, 1)]; !ok || got != 0 {
				t.Errorf("%s of %s: got %v (there: %v), want 0", key, of, got, ok)
			}
		}
	}
	w.load(site("", ""))
	for key := range gathered(t) {
		if strings.Contains(key, "site=other.localhost") {
			t.Errorf("got %s, want no series of a site that is gone", key)
		}
	}
}

// TestGaugesFollowStoreAndServer: they say whether both work, and which key seals.
func TestGaugesFollowStoreAndServer(t *testing.T) {
	w := newWorld(t)
	w.as.Set(func(k *fakeas.Knobs) { k.Discovery = fakeas.DiscoveryNone })
	w.load(site("", ""))
	awaitSeries(t, "store_up{store=memory}", 1)
	awaitSeries(t, "issuer_up{issuer="+w.as.URL+"}", 0)
	w.as.Set(func(k *fakeas.Knobs) { k.Discovery = fakeas.DiscoveryBoth })
	awaitSeries(t, "issuer_up{issuer="+w.as.URL+"}", 1)
	keys := 0
	for key, value := range gathered(t) {
		if strings.HasPrefix(key, "key_info{") && value == 1 {
			keys++
		}
	}
	if keys != 1 {
		t.Errorf("got %d keys, want the one that seals", keys)
	}
}

// TestDurationsAreMeasured of token requests, of waiting requests and of the store.
func TestDurationsAreMeasured(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	w.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"expires_in": 0.000001} })
	before := gathered(t)
	b := newBrowser(t, w.origin)
	b.login("/")
	after := gathered(t)
	for key, want := range map[string]float64{
		"token_request_seconds{grant_type=authorization_code,outcome=success,site=localhost}": 1,
		"token_request_seconds{grant_type=refresh_token,outcome=success,site=localhost}":      1,
		"refresh_wait_seconds{site=localhost}":                                                1,
	} {
		if got := after[key] - before[key]; got != want {
			t.Errorf("%s: got %v more, want %v", key, got, want)
		}
	}
	if key := "store_request_seconds{operation=create,result=success,store=memory}"; after[key] <= before[key] {
		t.Errorf("%s: got %v before and %v after", key, before[key], after[key])
	}
}

// TestSeriesAreBounded whatever visitors send.
func TestSeriesAreBounded(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	awaitSeries(t, "store_up{store=memory}", 1)
	awaitSeries(t, "issuer_up{issuer="+w.as.URL+"}", 1)
	newBrowser(t, w.origin).login("/")
	before := len(gathered(t))
	for i := range 300 {
		b := newBrowser(t, w.origin)
		b.fetch(fmt.Sprintf("/oauth2/%d?error=e%d&code=c%d&state=s%d", i, i, i, i))
		b.open(fmt.Sprintf("/oauth2/callback?error=e%d&state=s%d", i, i))
		b.fetch(fmt.Sprintf("/path%d", i))
	}
	if after := len(gathered(t)); after != before {
		t.Errorf("got %d series before and %d after strange requests", before, after)
	}
}

// TestMetricsPageListsAll: docs/metrics.md has each metric and each label.
func TestMetricsPageListsAll(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	newBrowser(t, w.origin).login("/")
	awaitSeries(t, "store_up{store=memory}", 1)
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for key := range gathered(t) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(key, "}"), "{")
		words := []string{name}
		for label := range strings.SplitSeq(labels, ",") {
			label, value, _ := strings.Cut(label, "=")
			words = append(words, label)
			if label == "outcome" || label == "reason" || label == "result" && name != "logins_total" || label == "part" || label == "operation" {
				words = append(words, value)
			}
		}
		for _, word := range words {
			if !strings.Contains(string(text), "`"+word+"`") {
				t.Errorf("docs/metrics.md: got no `%s` (%s)", word, name)
			}
		}
	}
}
