package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// The collectors are global, so a reload resets no counter. Label values come from fixed
// sets: none of them is a user, a session or a path.
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
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "oauth_session", Name: name, Help: help,
	}, labels)
}

// registerMetrics adds the collectors to the registry of a configuration.
func registerMetrics(ctx caddy.Context) error {
	for _, c := range []prometheus.Collector{loginsTotal, refusals, refreshes, endings, unwritten, takenOver, discarded, unreadable, foreignKeys, badCredentials} {
		err := ctx.GetMetricsRegistry().Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// countEvent counts an event of a keeper.
func countEvent(e keeper.Event) {
	switch e.Kind {
	case keeper.EventRefreshed:
		refreshes.WithLabelValues(keeper.Refreshed.String()).Inc()
	case keeper.EventRefreshFailed:
		outcome := e.Outcome.String()
		if e.ReuseSuspected {
			outcome = "reuse_suspected"
		}
		refreshes.WithLabelValues(outcome).Inc()
	case keeper.EventEnded:
		endings.WithLabelValues(string(e.Reason)).Inc()
	case keeper.EventUnwritten:
		unwritten.WithLabelValues().Inc()
	case keeper.EventLeaseTaken:
		takenOver.WithLabelValues().Inc()
	case keeper.EventDiscarded:
		discarded.WithLabelValues().Inc()
	case keeper.EventUnreadable:
		unreadable.WithLabelValues(string(e.Part())).Inc()
	}
}

// meter counts logins and refusals.
type meter struct{}

var _ handler.Meter = meter{}

// Login implements handler.Meter.
func (meter) Login(result string) { loginsTotal.WithLabelValues(result).Inc() }

// Refusal implements handler.Meter.
func (meter) Refusal(code string) { refusals.WithLabelValues(code).Inc() }
