package figures

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Report is a run with what is told about it.
type Report struct {
	Run
	Twin       string   // the subject that is the anchor a second time
	Header     string   // the subject that is the anchor with a header as long as the token's
	Peers      []string // the subjects that are other programs; the budget is not theirs
	Gate       Cell     // by which the run is judged
	GateRounds int      // that were measured
	Machine    string   // in words
	Notes      []string

	// Refreshing compares each subject, its tokens becoming due all the time,
	// with itself.
	Refreshing []Run
	Storms     []Storm
	Sizes      []Size
}

// ErrNoisy is in the error of Write if the machine was too noisy.
var ErrNoisy = errors.New("the machine was too noisy; no table is printed (-force prints it all the same)")

// Write writes the figures into the directory, and the table also to standard
// output. If there are doubts about the run it writes and prints no table, unless
// it is forced to.
func (r Report) Write(dir string, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "raw.json"), append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	doubts := r.Doubts()
	if len(doubts) > 0 && !force {
		all, out := r.Left()
		return fmt.Errorf("%w\n%d of %d slots were left out\n%s", ErrNoisy, out, all, strings.Join(doubts, "\n"))
	}
	r.Noisy = len(doubts) > 0
	for i := range r.Refreshing {
		r.Refreshing[i].Noisy = r.Noisy
	}
	table := r.table(doubts)
	fmt.Print(table)
	if err := os.WriteFile(filepath.Join(dir, "table.md"), []byte(table), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plot.svg"), []byte(r.plot()), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
