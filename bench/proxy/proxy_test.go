package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
)

func TestPlan(t *testing.T) {
	full := plan(1, 9, false)
	if full[0].Cell != (figures.Cell{Sessions: 1, Size: 200, Concurrency: 16}) || full[0].rounds != 9 {
		t.Errorf("the gate is %v", full[0])
	}
	at := map[int]bool{}
	seen := map[figures.Cell]bool{}
	for _, p := range full {
		if p.peers != (p.Size == 200 && p.Concurrency <= 16 && !p.HTTP2) {
			t.Errorf("%v: peers %v", p.Cell, p.peers)
		}
		if seen[p.Cell] || p.rounds < 1 || p.Sessions != 1 {
			t.Errorf("%v, %d rounds", p.Cell, p.rounds)
		}
		seen[p.Cell], at[p.Concurrency] = true, true
	}
	for _, n := range []int{1, 16, 64, 256} {
		if !at[n] {
			t.Errorf("nothing is measured at %d", n)
		}
	}
	if few := plan(1, 9, true); len(few) != 2 || few[1].Concurrency != 1 {
		t.Errorf("the gate alone is %v", few)
	}
	for _, p := range plan(10_000, 1, false) {
		if p.Sessions != 10_000 || p.rounds != 1 {
			t.Errorf("%v, %d rounds", p.Cell, p.rounds)
		}
	}
}

func TestNotes(t *testing.T) {
	peers := []fleet.Peer{{Name: "one", Version: "v1"}}
	if got := notes(peers, []string{"two"}, true); len(got) != 2 || !strings.HasPrefix(got[0], "one is v1.") || !strings.HasPrefix(got[1], "two was not measured") {
		t.Errorf("got %q", got)
	}
	if got := notes(peers, nil, false); len(got) != 1 || !strings.HasPrefix(got[0], "Redis was not measured") {
		t.Errorf("without Redis: %q", got)
	}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		args     []string
		sessions []int // nil: an error
	}{
		{nil, []int{1, 10_000}},
		{[]string{"-sessions", "1,1000000"}, []int{1, 1_000_000}},
		{[]string{"-gate"}, []int{1}},
		{[]string{"-sessions", "5", "-gate"}, []int{5}},
		{[]string{"-sessions", "5", "-due", "1"}, []int{1}},
		{[]string{"-sessions", "0"}, nil},
		{[]string{"-sessions", "many"}, nil},
		{[]string{"-sessions", "1,"}, nil},
	} {
		o, err := parse(tc.args)
		if (err != nil) != (tc.sessions == nil) || err == nil && !slices.Equal(o.sessions, tc.sessions) {
			t.Errorf("%v: %v, %v", tc.args, o.sessions, err)
		}
	}
	if o, err := parse([]string{"-quick"}); err != nil || o.rounds != 2 || o.slot() >= (options{}).slot() || o.patience() >= (options{}).patience() {
		t.Errorf("quick is %v, %v", o, err)
	}
}
