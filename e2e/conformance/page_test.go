package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	pageFile   = "../../docs/conformance.md"
	beginTable = "<!-- the plans: UPDATE=1 go test -run TestPage ./conformance -->\n"
	endTable   = "<!-- end of the plans -->\n"
)

// TestPageHasTheTableOfTheCode: docs/conformance.md has one table per plan, with one row per module, as in the code.
func TestPageHasTheTableOfTheCode(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(text), beginTable)
	got, tail, closed := strings.Cut(rest, endTable)
	if !found || !closed {
		t.Fatalf("%s: got no lines %q and %q, want them around the tables", pageFile, beginTable, endTable)
	}
	want := tables()
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(pageFile, []byte(head+beginTable+want+endTable+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("%s: got tables\n%s\nwant\n%s\nUPDATE=1 writes them", pageFile, got, want)
	}
}

// TestNoModuleIsListedTwice: within a plan, each module has one row, so that its test has the name of the module.
func TestNoModuleIsListedTwice(t *testing.T) {
	t.Parallel()
	for _, p := range plans {
		seen := map[string]bool{}
		for _, m := range p.modules {
			if seen[m.name] {
				t.Errorf("%s: got %s twice, want one row", p.name, m.name)
			}
			seen[m.name] = true
		}
	}
}

// tables returns the tables of the page.
func tables() string {
	var b strings.Builder
	for _, p := range plans {
		fmt.Fprintf(&b, "\n### `%s`\n\n", p.name)
		if p.note != "" {
			fmt.Fprintf(&b, "%s\n\n", p.note)
		}
		b.WriteString("| module | the server, in our test | end |\n|---|---|---|\n")
		for _, m := range p.modules {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", m.name, m.server, m.end)
		}
	}
	return b.String() + "\n"
}
