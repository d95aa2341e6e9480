package main

import (
	"slices"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
)

// planned is a kind of load and how often it is measured.
type planned struct {
	figures.Cell
	rounds int
	peers  bool // take part
}

// plan returns what is measured with a number of sessions. The gate comes
// first; gateOnly leaves out all but that and one request at a time.
func plan(sessions, rounds int, gateOnly bool) []planned {
	few := max(rounds*3/7, 1)
	cells := []planned{
		{figures.Cell{Size: 200, Concurrency: 16}, rounds, true},
		{figures.Cell{Size: 200, Concurrency: 1}, max(rounds*5/7, 1), true},
		{figures.Cell{Size: 200, Concurrency: 64}, few, false},
		{figures.Cell{Size: 200, Concurrency: 256}, few, false},
		{figures.Cell{Size: 10 << 10, Concurrency: 16}, few, false},
		{figures.Cell{Size: 10 << 10, Concurrency: 1}, few, false},
		{figures.Cell{HTTP2: true, Size: 200, Concurrency: 16}, few, false},
		{figures.Cell{HTTP2: true, Size: 200, Concurrency: 1}, few, false},
		{figures.Cell{HTTP2: true, Size: 10 << 10, Concurrency: 16}, few, false},
	}
	if gateOnly || sessions > 1 {
		// What protocol and size cost does not depend on how many sessions
		// there are.
		cells = cells[:2]
	}
	cells = slices.Clone(cells)
	for i := range cells {
		cells[i].Sessions = sessions
	}
	return cells
}
