package caddymodule

import (
	"net/http"
	"strings"
	"testing"

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
			key := name
			for _, label := range m.GetLabel() {
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
		countEvent(e)
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
