package caddymodule

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// The collectors are global, so a reload resets no counter. Label values come from the
// configuration and from fixed lists: none of them is a user, a session or a path.
var (
	loginsTotal    = counter("logins_total", "Logins by result: completed, restarted, or the code of the page they ended on.", "result")
	refusals       = counter("refusals_total", "Requests answered with an error of oauth_session, by its code.", "code")
	refreshes      = counter("refreshes_total", "Refreshes by outcome.", "outcome")
	endings        = counter("sessions_ended_total", "Sessions that ended, by reason.", "reason")
	unwritten      = counter("unwritten_total", "Times that new tokens could not be written to the store and were kept in memory.")
	takenOver      = counter("leases_taken_total", "Refreshes taken over from another instance that stopped responding during one.")
	discarded      = counter("discarded_total", "Times that new tokens arrived for a session that had ended.")
	unreadable     = counter("unreadable_total", "Times that a stored value did not open and counted as no session, by the part that failed.", "part")
	foreignKeys    = counter("foreign_keys_total", "Times, at most once a minute for each site, that other instances had keys that this one lacks.")
	badCredentials = counter("credentials_unusable_total", "Times, at most once a minute for each site, that the client's credentials could not be read or used.")

	tokenSeconds = histogram("token_request_seconds", "Duration of requests to the token endpoint, by grant type and outcome.", tokenBuckets, siteLabelName, "grant_type", "outcome")
	waitSeconds  = histogram("refresh_wait_seconds", "How long requests waited for a refresh. Requests with a valid token do not wait.", tokenBuckets, siteLabelName)
	storeSeconds = histogram("store_request_seconds", "Duration of calls to the store, except reads by requests, by operation and result.", storeBuckets, "store", "operation", "result")

	storeUp  = gauge("store_up", "Whether the last check or call found the store working.", "store")
	issuerUp = gauge("issuer_up", "Whether the last check or refresh found the authorization server working.", "issuer")
	keyInfo  = gauge("key_info", "The ID of the key that this instance encrypts with.", siteLabelName, "key_id")
)

// siteLabelName is the label that names a site, see siteLabel.
const siteLabelName = "site"

// Buckets in seconds: an authorization server answers in 20 ms to a minute, a store in 50
// microseconds to seconds.
var (
	tokenBuckets = []float64{0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}
	storeBuckets = []float64{0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1, 2.5}
)

func name(text, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "caddy", Subsystem: "oauth_session", Name: text, Help: help}
}

func counter(text, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts(name(text, help)), append([]string{siteLabelName}, labels...))
}

func gauge(text, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts(name(text, help)), labels)
}

func histogram(text, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	o := name(text, help)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: o.Namespace, Subsystem: o.Subsystem, Name: o.Name, Help: o.Help, Buckets: buckets}, labels)
}

// siteCollectors have the label site.
var siteCollectors = []interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}{
	loginsTotal, refusals, refreshes, endings, unwritten, takenOver, discarded, unreadable, foreignKeys, badCredentials,
	tokenSeconds, waitSeconds, keyInfo,
}

// registerMetrics adds the collectors to the registry of a configuration.
func registerMetrics(ctx caddy.Context) error {
	all := []prometheus.Collector{storeSeconds, storeUp, issuerUp}
	for _, c := range siteCollectors {
		all = append(all, c)
	}
	for _, c := range all {
		err := ctx.GetMetricsRegistry().Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// siteMetrics counts the events of one site.
type siteMetrics struct{ site string }

var _ handler.Meter = siteMetrics{}

// begin makes the series of a site, so that each has a value before its first event: an
// increase from nothing to 1 is none for Prometheus.
func (m siteMetrics) begin(keyIDs []string) {
	for _, result := range handler.LoginResults() {
		loginsTotal.WithLabelValues(m.site, result)
	}
	for _, code := range handler.RefusalCodes() {
		refusals.WithLabelValues(m.site, code)
	}
	for _, outcome := range keeper.Outcomes() {
		refreshes.WithLabelValues(m.site, outcome.String())
	}
	refreshes.WithLabelValues(m.site, reuseSuspected)
	for _, reason := range keeper.EndReasons() {
		endings.WithLabelValues(m.site, string(reason))
	}
	for _, part := range seal.Parts() {
		unreadable.WithLabelValues(m.site, string(part))
	}
	for _, c := range []*prometheus.CounterVec{unwritten, takenOver, discarded, foreignKeys, badCredentials} {
		c.WithLabelValues(m.site)
	}
	waitSeconds.WithLabelValues(m.site)
	m.sealsWith(keyIDs)
}

// sealsWith shows the first one of the keys.
func (m siteMetrics) sealsWith(keyIDs []string) {
	keyInfo.DeletePartialMatch(prometheus.Labels{siteLabelName: m.site})
	if len(keyIDs) > 0 {
		keyInfo.WithLabelValues(m.site, keyIDs[0]).Set(1)
	}
}

// end removes the series of a site that no configuration has any more.
func (m siteMetrics) end() {
	for _, c := range siteCollectors {
		c.DeletePartialMatch(prometheus.Labels{siteLabelName: m.site})
	}
}

// reuseSuspected is the outcome of a refresh with Event.ReuseSuspected.
const reuseSuspected = "reuse_suspected"

// event counts an event of a keeper.
func (m siteMetrics) event(e keeper.Event) {
	switch e.Kind {
	case keeper.EventRefreshed:
		refreshes.WithLabelValues(m.site, keeper.Refreshed.String()).Inc()
	case keeper.EventRefreshFailed:
		outcome := e.Outcome.String()
		if e.ReuseSuspected {
			outcome = reuseSuspected
		}
		refreshes.WithLabelValues(m.site, outcome).Inc()
	case keeper.EventEnded:
		endings.WithLabelValues(m.site, string(e.Reason)).Inc()
	case keeper.EventUnwritten:
		unwritten.WithLabelValues(m.site).Inc()
	case keeper.EventLeaseTaken:
		takenOver.WithLabelValues(m.site).Inc()
	case keeper.EventDiscarded:
		discarded.WithLabelValues(m.site).Inc()
	case keeper.EventUnreadable:
		unreadable.WithLabelValues(m.site, string(e.Part())).Inc()
	case keeper.EventWaited:
		waitSeconds.WithLabelValues(m.site).Observe(e.Took.Seconds())
	}
}

// Login implements handler.Meter.
func (m siteMetrics) Login(result string) { loginsTotal.WithLabelValues(m.site, result).Inc() }

// Refusal implements handler.Meter.
func (m siteMetrics) Refusal(code string) { refusals.WithLabelValues(m.site, code).Inc() }

// TokenRequest implements handler.Meter.
func (m siteMetrics) TokenRequest(outcome keeper.Outcome, took time.Duration) {
	m.tokenRequest("authorization_code", outcome, took)
}

func (m siteMetrics) refreshRequest(outcome keeper.Outcome, took time.Duration) {
	m.tokenRequest("refresh_token", outcome, took)
}

func (m siteMetrics) tokenRequest(grant string, outcome keeper.Outcome, took time.Duration) {
	result := outcome.String()
	if outcome == keeper.Refreshed {
		result = "success"
	}
	tokenSeconds.WithLabelValues(m.site, grant, result).Observe(took.Seconds())
}

// setUp sets the gauge of a store or an authorization server.
func setUp(g *prometheus.GaugeVec, name string, up bool) {
	value := 0.0
	if up {
		value = 1
	}
	g.WithLabelValues(name).Set(value)
}

// serverIsDown has the outcomes of a refresh that the server did not answer.
var serverIsDown = map[keeper.Outcome]bool{keeper.Unavailable: true, keeper.Unanswered: true, keeper.TimedOut: true}

// observeStore measures a call to a store. What the contract of a store calls errors are
// answers.
func observeStore(store, operation string, took time.Duration, err error) {
	result := "success"
	if err != nil && !isAnswer(err) {
		result = "error"
	}
	storeSeconds.WithLabelValues(store, operation, result).Observe(took.Seconds())
}
