package caddymodule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	zapobserver "go.uber.org/zap/zaptest/observer"
)

// patient has a monitor, what it finds, and how often it looked.
type patient struct {
	mu     sync.Mutex
	found  []finding
	checks int
}

func (p *patient) set(found ...finding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = found
}

func (p *patient) check(context.Context) []finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks++
	return p.found
}

func (p *patient) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checks
}

func finds(code, text string, warning bool) finding {
	return finding{code: code, option: "store", err: errors.New(text), warning: warning}
}

// TestMonitorSaysOnceWhatFailsAndWhatRecovers: each finding has one line when it appears
// or has another cause, and one when it is gone.
func TestMonitorSaysOnceWhatFailsAndWhatRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := zapobserver.New(zap.DebugLevel)
		var p patient
		m := newMonitor(p.check, zap.New(core), storeTexts)
		m.sites = []string{"a.example", "b.example"}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		next := func(want ...string) {
			t.Helper()
			time.Sleep(maxMonitorPause + time.Second)
			synctest.Wait()
			var got []string
			for _, e := range logs.TakeAll() {
				got = append(got, e.Level.String()+" "+e.Message)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		p.set(finds(findingStore, "refused", false))
		go m.run(ctx)
		next("warn " + storeTexts.fails)
		next()
		p.set(finds(findingStore, "full", false))
		next("warn " + storeTexts.fails)
		p.set()
		next("info " + storeTexts.recovers)
		checks := p.count()
		p.set(finds(findingStore, "unseen", false))
		next()
		if p.count() != checks {
			t.Errorf("got %d checks while all was well, want none", p.count()-checks)
		}
		for range 100 {
			m.failed()
		}
		next("warn " + storeTexts.fails)
		p.set(finds("clock", "ahead", true))
		next("warn "+storeTexts.warns, "info "+storeTexts.recovers)
		checks = p.count()
		for range 1000 { // calls may fail although the store works
			m.failed()
			time.Sleep(10 * time.Millisecond)
		}
		next()
		if n := p.count() - checks; n > 12 {
			t.Errorf("got %d checks in ten seconds, want at most one a second", n)
		}
		cancel()
		synctest.Wait()
		p.set()
		m.failed()
		next()
	})
}

// TestMonitorBacksOff: a server that is down for an hour is asked about once a minute.
func TestMonitorBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patient
		p.set(finds(findingStore, "refused", false))
		go newMonitor(p.check, zap.NewNop(), storeTexts).run(t.Context())
		time.Sleep(time.Hour)
		if n := p.count(); n < 60 || n > 140 {
			t.Errorf("got %d checks in an hour, want 60 to 140", n)
		}
	})
}

// TestMonitorsTakeTurns: hundreds of clients of one server do not ask it at once, and each
// of them does ask.
func TestMonitorsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 3)
		var running, most, checked atomic.Int64
		for range 50 {
			m := newMonitor(func(context.Context) []finding {
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(10 * time.Second)
				running.Add(-1)
				checked.Add(1)
				return nil
			}, zap.NewNop(), serverTexts)
			m.slots = slots
			go m.run(t.Context())
		}
		time.Sleep(10 * time.Minute)
		if most.Load() != 3 || checked.Load() != 50 {
			t.Errorf("got %d checks, %d at once, want 50 and 3", checked.Load(), most.Load())
		}
	})
}
