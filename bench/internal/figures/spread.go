package figures

import (
	"math"
	"slices"
)

// A Spread sums up a figure of several rounds: the median, and between which
// values the middle half of the rounds is, or all of four and fewer.
type Spread struct {
	Median, Low, High float64
	Rounds            int
}

// spreadOf sums up values; of none, all is NaN.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{Median: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	half := len(v) / 2
	median := v[half]
	if len(v)%2 == 0 {
		median = (v[half-1] + v[half]) / 2
	}
	outside := (len(v) - 1) / 4
	return Spread{Median: median, Low: v[outside], High: v[len(v)-1-outside], Rounds: len(v)}
}

// Run is all that was measured.
type Run struct {
	Anchor string // the subject that the others are compared with
	Slots  []Slot
	// Noisy lets slots count that were not quiet.
	Noisy bool
}

// counts reports whether a slot is used.
func (r Run) counts(s Slot) bool { return r.Noisy || s.Quiet() }

// Of sums up a figure of a subject.
func (r Run) Of(c Cell, subject string, figure func(Slot) float64) Spread {
	var values []float64
	for _, s := range r.Slots {
		if s.Cell == c && s.Subject == subject && r.counts(s) {
			values = append(values, figure(s))
		}
	}
	return spreadOf(values)
}

// Ratio sums up a figure of a subject divided by that of the anchor in the same
// round.
func (r Run) Ratio(c Cell, subject string, figure func(Slot) float64) Spread {
	return r.against(c, subject, func(s, anchor Slot) float64 { return figure(s) / figure(anchor) })
}

// Difference sums up how much a figure of a subject is above that of the anchor
// in the same round.
func (r Run) Difference(c Cell, subject string, figure func(Slot) float64) Spread {
	return r.against(c, subject, func(s, anchor Slot) float64 { return figure(s) - figure(anchor) })
}

func (r Run) against(c Cell, subject string, compare func(s, anchor Slot) float64) Spread {
	anchors := map[int]Slot{}
	for _, s := range r.Slots {
		if s.Cell == c && s.Subject == r.Anchor && r.counts(s) {
			anchors[s.Round] = s
		}
	}
	var values []float64
	for _, s := range r.Slots {
		if s.Cell != c || s.Subject != subject || !r.counts(s) {
			continue
		}
		if anchor, ok := anchors[s.Round]; ok {
			values = append(values, compare(s, anchor))
		}
	}
	return spreadOf(values)
}

// Cells are the kinds of load in the order they were measured.
func (r Run) Cells() []Cell {
	var cells []Cell
	for _, s := range r.Slots {
		if !slices.Contains(cells, s.Cell) {
			cells = append(cells, s.Cell)
		}
	}
	return cells
}

// Subjects are those of a cell, the anchor first, then in the order of the first
// round.
func (r Run) Subjects(c Cell) []string {
	subjects := []string{r.Anchor}
	for _, s := range r.Slots {
		if s.Cell == c && !slices.Contains(subjects, s.Subject) {
			subjects = append(subjects, s.Subject)
		}
	}
	return subjects
}

// Left returns how many slots there are, and how many of them do not count.
func (r Run) Left() (all, out int) {
	for _, s := range r.Slots {
		if !s.Quiet() {
			out++
		}
	}
	return len(r.Slots), out
}
