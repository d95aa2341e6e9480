package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// The collectors exist once, so that a reload resets no counter. All labels are
// words of ours: no user, session or path is among them.
var (
	loginsTotal = counter("logins_total", "Logins by how they went: completed, restarted, or the code of the page they ended on.", "result")
	refusals    = counter("refusals_total", "Requests answered with an error of oauth_session, by its code.", "code")
	refreshes   = counter("refreshes_total", "Refreshes by outcome.", "outcome")
	endings     = counter("sessions_ended_total", "Sessions that ended, by reason.", "reason")
	unwritten   = counter("unwritten_total", "Times that new tokens could not be written to the store and were kept in memory.")
	takenOver   = counter("leases_taken_total", "Refreshes begun in place of another instance that had fallen silent in the midst of one.")
	discarded   = counter("discarded_total", "Times that new tokens came for a session which had ended.")
	unreadable  = counter("unreadable_total", "Times that something in the store did not open, and was taken for no session, by the part that failed.", "part")
	foreignKeys = counter("foreign_keys_total", "Times, at most once a minute for each site, that other instances were found to have keys which this one lacks.")
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "oauth_session", Name: name, Help: help,
	}, labels)
}

// registerMetrics makes the collectors known to a configuration's registry.
func registerMetrics(ctx caddy.Context) error {
	for _, c := range []prometheus.Collector{loginsTotal, refusals, refreshes, endings, unwritten, takenOver, discarded, unreadable, foreignKeys} {
		err := ctx.GetMetricsRegistry().Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// countEvent counts what happens to sessions outside of requests.
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

// meter counts what a handler answers.
type meter struct{}

var _ handler.Meter = meter{}

// Login implements handler.Meter.
func (meter) Login(result string) { loginsTotal.WithLabelValues(result).Inc() }

// Refusal implements handler.Meter.
func (meter) Refusal(code string) { refusals.WithLabelValues(code).Inc() }
