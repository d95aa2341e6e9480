package caddymodule

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

const (
	// monitorTimeout bounds one check.
	monitorTimeout = 15 * time.Second
	// The pause between two checks while something does not work, and the least pause
	// between two checks of a store that works but fails single calls.
	minMonitorPause, maxMonitorPause = 2 * time.Second, time.Minute
)

// monitor checks a store or an authorization server when a configuration starts, and
// after that only while something does not work. It logs each finding once, and when it
// is gone. Nothing waits for a monitor.
type monitor struct {
	check  func(context.Context) []finding
	sites  []string // their labels
	logger *zap.Logger
	texts  monitorTexts
	// observe is called with the result of each check.
	observe func(up bool)
	// slots bounds the checks of several monitors at the same time; nil: no bound.
	slots chan struct{}
	// wake starts a check after a failed call. It has room for one value.
	wake chan struct{}
}

// monitorTexts are the messages of the log.
type monitorTexts struct{ fails, warns, recovers, settles string }

var storeTexts = monitorTexts{
	fails:    "the session store cannot be used: requests that need a session are answered with status 503 until it can",
	warns:    "the session store may not work",
	recovers: "the session store works again",
	settles:  "a warning about the session store is settled",
}

var serverTexts = monitorTexts{
	fails:    "logins will fail: the authorization server cannot be used as configured",
	warns:    "logins may fail",
	recovers: "the authorization server can be used again",
	settles:  "a warning about the authorization server is settled",
}

func newMonitor(check func(context.Context) []finding, logger *zap.Logger, texts monitorTexts) *monitor {
	return &monitor{check: check, logger: logger, texts: texts, observe: func(bool) {}, wake: make(chan struct{}, 1)}
}

// failed asks for a check, because a call has failed. It does not block.
func (m *monitor) failed() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run checks until ctx ends.
func (m *monitor) run(ctx context.Context) {
	known := map[string]finding{}
	pause := minMonitorPause
	for {
		found := m.checkInTurn(ctx)
		if ctx.Err() != nil {
			return
		}
		m.report(known, found)
		var again <-chan struct{}
		if failure(found) == nil {
			pause, again = minMonitorPause, m.wake
		}
		// Half of the pause is random, so that many instances do not ask at once.
		timer := time.NewTimer(pause/2 + rand.N(pause/2)) //nolint:gosec // no secret
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if again == nil {
			pause = min(2*pause, maxMonitorPause)
			continue
		}
		select {
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// checkInTurn waits for a slot and checks. Its result is void if ctx ends.
func (m *monitor) checkInTurn(ctx context.Context) []finding {
	if m.slots != nil {
		select {
		case m.slots <- struct{}{}:
			defer func() { <-m.slots }()
		case <-ctx.Done():
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	return m.check(ctx)
}

// report logs what is new and what is gone. known has what was reported before.
func (m *monitor) report(known map[string]finding, found []finding) {
	current := map[string]bool{}
	sites := zap.Strings("sites", m.sites)
	for _, f := range found {
		key := f.code + " " + f.option
		current[key] = true
		if before, ok := known[key]; ok && before.err.Error() == f.err.Error() {
			continue
		}
		known[key] = f
		text := m.texts.fails
		if f.warning {
			text = m.texts.warns
		}
		m.logger.Warn(text, append(f.fields(), sites)...)
	}
	healthy := failure(found) == nil
	for key, f := range known {
		if current[key] {
			continue
		}
		delete(known, key)
		if f.warning {
			m.logger.Info(m.texts.settles, zap.String("finding", f.code), sites)
		} else if healthy {
			m.logger.Info(m.texts.recovers, zap.String("finding", f.code), sites)
		}
	}
	m.observe(healthy)
}
