package caddyoauthsession_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// requirements are the numbers of the rows of docs/security.md.
var requirements = strings.Fields(`
	S01 S04 S05 S06 S07 S08 S09 S10 S11 S12 S14 S15 S16 S18 S19 S20 S21 S22 S24 S25 S26 S27 S29
	S30 S33 S34 S36 S37 S38 S40 S41 S42 S43 S45 S46 S48 S49 S51 S52 S53 S55 S56 S57 S58 S59 S60
	S62 S63 S66 S67 S69 S71 S72 S73 S74 S75 S77 S78 S80 S81 S82 S83 S84 S85 S86 S87 S88
	S89 S91 S92 S93 S96 S97 S98 S99 S100 S101 S104 S105 S106 S107 S109 S111 S113 S114
	S115 S116 S117 S118 S119 S120 S124 S125 S126 S127 S128`)

const securitySuite = "e2e/security"

// TestSecurityTable holds docs/security.md against the code: the page has each requirement
// once, the files and tests that it names exist, and it lists every test of the suite.
func TestSecurityTable(t *testing.T) {
	page, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testsByDir(t)
	rows := securityRows(string(page))
	for _, s := range requirements {
		if n := len(rows[s]); n != 1 {
			t.Errorf("%s: got %d rows, want 1", s, n)
		}
	}
	files := namedFiles(string(page))
	if len(files) < 100 {
		t.Errorf("got %d files on the page, want at least 100", len(files))
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the page names %s, which does not exist", file)
		}
	}
	for s, texts := range rows {
		if !slices.Contains(requirements, s) {
			t.Errorf("got a row %s, which is not a requirement", s)
		}
		for _, missing := range missingTests(s, texts[0], tests) {
			t.Errorf("%s names %s, which does not exist", s, missing)
		}
	}
	number := regexp.MustCompile(`^Test(S\d+)`)
	for name := range tests[securitySuite] {
		if m := number.FindStringSubmatch(name); m != nil && (len(rows[m[1]]) == 0 || !strings.Contains(rows[m[1]][0], "Test"+m[1]+"…")) {
			t.Errorf("%s has no row that names Test%s…", name, m[1])
		}
	}
}

// TestSecurityTableSeesMistakes shows that the test above can fail.
func TestSecurityTableSeesMistakes(t *testing.T) {
	tests := map[string]map[string]bool{securitySuite: {"TestS12Broken": true, "TestS1": true}, "oauth": {"TestA": true}, "handler": {"TestB": true}}
	for row, want := range map[string]int{
		"| TestS12…; `oauth` TestA |":         0,
		"| TestS12…; `oauth` TestB |":         1, // in another directory
		"| TestS12…; `oauth` TestA, TestA2 |": 1,
		"| `oauth` TestA |":                   1, // the suite is not named
		"| open: not offered |":               0,
		"| `nowhere` TestA; TestS13… |":       3,
	} {
		if got := missingTests("S12", row, tests); len(got) != want {
			t.Errorf("%s: got %q missing, want %d of them", row, got, want)
		}
	}
	rows := securityRows("| S01 | a |\n| S01 | b |\nS02 | c |\n")
	if len(rows["S01"]) != 2 || len(rows) != 1 {
		t.Errorf("got rows %q, want two of S01 and no other", rows)
	}
}

// securityRows returns the rows of all tables, by the number in their first cell.
func securityRows(page string) map[string][]string {
	rows := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (S\d+) (\|.*)$`).FindAllStringSubmatch(page, -1) {
		rows[m[1]] = append(rows[m[1]], m[2])
	}
	return rows
}

// missingTests returns the tests that the last cell of a row names and that do not exist. A
// name belongs to the directory in backquotes before it. A name that ends in … stands for all
// tests of the suite that begin with it.
func missingTests(number, row string, tests map[string]map[string]bool) (missing []string) {
	cells := strings.Split(strings.Trim(row, "| "), "|")
	last := cells[len(cells)-1]
	if strings.HasPrefix(strings.TrimSpace(last), "open: ") {
		return nil
	}
	if !strings.Contains(last, "Test"+number+"…") {
		missing = append(missing, "no Test"+number+"…")
	}
	dir := ""
	for _, m := range regexp.MustCompile("`([a-z0-9/]+)`|\\b((?:Test|Fuzz)[A-Z]\\w*)(…?)").FindAllStringSubmatch(last, -1) {
		switch name := m[2]; {
		case m[1] != "":
			dir = m[1]
		case m[3] != "":
			if !hasPrefix(tests[securitySuite], name) {
				missing = append(missing, name+"…")
			}
		case !tests[dir][name]:
			missing = append(missing, name+" in "+dir)
		}
	}
	return missing
}

// hasPrefix reports whether the name of a test begins with a prefix such as TestS1, and no
// digit follows the prefix.
func hasPrefix(tests map[string]bool, prefix string) bool {
	for name := range tests {
		rest, ok := strings.CutPrefix(name, prefix)
		if ok && (rest == "" || rest[0] < '0' || rest[0] > '9') {
			return true
		}
	}
	return false
}

// testsByDir returns all tests and fuzz targets of the repository, including those of its
// other Go modules.
func testsByDir(t *testing.T) map[string]map[string]bool {
	t.Helper()
	tests := map[string]map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if tests[dir] == nil {
			tests[dir] = map[string]bool{}
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[dir][f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// TestProviderPageNamesTests checks that the tests named in docs/providers.md exist.
func TestProviderPageNamesTests(t *testing.T) {
	page, err := os.ReadFile("docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, missing := range missingNamedTests(string(page), testsByDir(t)) {
		t.Errorf("docs/providers.md names %s, which does not exist", missing)
	}
	if n := strings.Count(string(page), "\n| V"); n < 18 {
		t.Errorf("docs/providers.md: got %d rows, want at least 18", n)
	}
}

// TestConformancePageNamesTests: each clause of docs/conformance.md names tests that exist.
func TestConformancePageNamesTests(t *testing.T) {
	page, err := os.ReadFile("docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, missing := range missingNamedTests(string(page), testsByDir(t)) {
		t.Errorf("docs/conformance.md names %s, which does not exist", missing)
	}
	_, clauses, _ := strings.Cut(string(page), "\n## Clauses\n")
	rows := clauseRows(clauses)
	for _, row := range rows {
		if !strings.Contains(row[strings.LastIndex(strings.TrimRight(row, "| "), "|"):], "` Test") {
			t.Errorf("docs/conformance.md: got no test in %s, want one in the last cell", row)
		}
	}
	if len(rows) < 40 {
		t.Errorf("docs/conformance.md: got %d clauses, want at least 40", len(rows))
	}
}

// clauseRows returns the rows of tables, without their heads.
func clauseRows(text string) []string {
	return regexp.MustCompile(`(?m)^\| [^-].*$`).FindAllString(strings.ReplaceAll(text, "| clause | kept | how | tests |\n", ""), -1)
}

// TestDependenciesAreExplained checks that docs/dependencies.md has a row for each direct
// dependency.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1)
	if len(direct) < 5 {
		t.Fatalf("got %d direct dependencies, want at least 5", len(direct))
	}
	for _, m := range direct {
		if !strings.Contains(string(page), "\n| `"+m[1]+"` |") {
			t.Errorf("docs/dependencies.md: got no row for %s", m[1])
		}
	}
}

// TestKeyPageQuotesLogsOfTheCode: docs/keys.md explains logs by their text. Each quoted
// text, apart from its "…", stands in the code.
func TestKeyPageQuotesLogsOfTheCode(t *testing.T) {
	page, err := os.ReadFile("docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	code := sourceText(t, "caddymodule", "handler", "session/seal")
	_, table, _ := strings.Cut(string(page), "| log |")
	quoted := regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(table, -1)
	if len(quoted) < 6 {
		t.Fatalf("docs/keys.md: got %d quoted logs, want at least 6", len(quoted))
	}
	for _, log := range quoted {
		for part := range strings.SplitSeq(log[1], "…") {
			if !strings.Contains(code, part) {
				t.Errorf("docs/keys.md quotes the log %q: got no %q in the code", log[1], part)
			}
		}
	}
}

// sourceText returns the text of the Go files of some directories, without tests.
func sourceText(t *testing.T, dirs ...string) string {
	t.Helper()
	var text strings.Builder
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(source)
		}
	}
	return text.String()
}

// TestDecisionsAreListed: the table of docs/decisions has one row for each page, with the
// page's number, its title and its file.
func TestDecisionsAreListed(t *testing.T) {
	table, err := os.ReadFile("docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/decisions/[0-9]*.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(page)
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		number, _, _ := strings.Cut(name, "-")
		want = append(want, strings.TrimLeft(number, "0")+" ["+title+"]("+name+")")
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| [^|]+\? \| (\[.+\]\(.+\)) \|$`).FindAllStringSubmatch(string(table), -1) {
		got = append(got, m[1]+" "+m[2])
	}
	if !slices.Equal(got, want) {
		t.Errorf("got rows %q, want %q", got, want)
	}
	if len(want) < 24 {
		t.Errorf("got %d pages, want 24 at least: the test does not see them", len(want))
	}
}
