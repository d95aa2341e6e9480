// Package promrules evaluates alert rules for Prometheus over scrapes that a test has
// made. The test says how much time passes between two scrapes, so no test waits for a
// rule.
package promrules

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// Step is the time between two scrapes.
const Step = 15 * time.Second

// A Recorder has the values of all series in a sequence of scrapes.
type Recorder struct {
	prefix string
	steps  int
	values map[string][]string // by series; "_" where a scrape did not have it
}

// New returns an empty Recorder of the series with a prefix.
func New(prefix string) *Recorder { return &Recorder{prefix: prefix, values: map[string][]string{}} }

// Record adds the text of a scrape n times, as if nothing had changed in between.
func (r *Recorder) Record(scrape string, n int) {
	for range n {
		for line := range strings.Lines(scrape) {
			series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
			if !ok || !strings.HasPrefix(line, r.prefix) {
				continue
			}
			series += "}"
			r.values[series] = append(r.fill(series), value)
		}
		r.steps++
	}
}

// fill returns the values of a series up to the present scrape.
func (r *Recorder) fill(series string) []string {
	values := r.values[series]
	for len(values) < r.steps {
		values = append(values, "_")
	}
	return values
}

// Steps returns the number of scrapes.
func (r *Recorder) Steps() int { return r.steps }

// Names returns the names of all recorded metrics with their labels.
func (r *Recorder) Names() map[string]map[string]bool {
	names := map[string]map[string]bool{}
	for series := range r.values {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if names[name] == nil {
			names[name] = map[string]bool{}
		}
		for label := range strings.SplitSeq(labels, `",`) {
			label, _, _ := strings.Cut(label, "=")
			names[name][label] = true
		}
	}
	return names
}

// A Rule is an alert rule.
type Rule struct {
	Name, Expr string
	For        time.Duration
}

// ReadRules returns the alert rules of a file.
func ReadRules(t testing.TB, file string) (rules []Rule) {
	t.Helper()
	groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation)
	if len(errs) > 0 {
		t.Fatalf("%s: %v", file, errs)
	}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules = append(rules, Rule{Name: rule.Alert, Expr: rule.Expr, For: time.Duration(rule.For)})
		}
	}
	return rules
}

// Selected returns the metrics and labels that an expression needs. Labels of a
// histogram's series include le.
func Selected(t testing.TB, expr string) map[string][]string {
	t.Helper()
	parsed, err := parser.ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	needed := map[string][]string{}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			needed[selector.Name] = append(needed[selector.Name], nil...)
			for _, matcher := range selector.LabelMatchers {
				if matcher.Name != model.MetricNameLabel {
					needed[selector.Name] = append(needed[selector.Name], matcher.Name)
				}
			}
		}
		return nil
	})
	return needed
}

// Firing returns, for each rule, whether it fires at each step.
func (r *Recorder) Firing(t testing.TB, rules []Rule) map[string][]bool {
	t.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "load %s\n", Step)
	for _, series := range slices.Sorted(maps.Keys(r.values)) {
		fmt.Fprintf(&script, "  %s %s\n", series, strings.Join(r.fill(series), " "))
	}
	storage := promqltest.LoadedStorage(t, script.String())
	t.Cleanup(func() { _ = storage.Close() })
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1 << 24, Timeout: time.Minute, LookbackDelta: 5 * time.Minute})
	firing := map[string][]bool{}
	for _, rule := range rules {
		for step, since := 0, -1; step < r.steps; step++ {
			at := time.Unix(0, 0).Add(time.Duration(step) * Step)
			query, err := engine.NewInstantQuery(context.Background(), storage, nil, rule.Expr, at)
			if err != nil {
				t.Fatalf("%s: %v", rule.Name, err)
			}
			result := query.Exec(context.Background())
			if result.Err != nil {
				t.Fatalf("%s: %v", rule.Name, result.Err)
			}
			vector, err := result.Vector()
			if err != nil {
				t.Fatalf("%s: %v", rule.Name, err)
			}
			switch {
			case len(vector) == 0:
				since = -1
			case since < 0:
				since = step
			}
			query.Close()
			firing[rule.Name] = append(firing[rule.Name], since >= 0 && time.Duration(step-since)*Step >= rule.For)
		}
	}
	return firing
}
