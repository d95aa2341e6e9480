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

// requirements are the numbers of the requirements in docs/security.md.
var requirements = strings.Fields(`
	S01 S04 S05 S06 S07 S08 S09 S10 S11 S12 S14 S15 S16 S18 S19 S20 S21 S22 S24 S25 S26 S27 S29
	S30 S33 S34 S36 S37 S38 S40 S41 S42 S43 S45 S46 S48 S49 S51 S52 S53 S55 S56 S57 S58 S59 S60
	S62 S63 S66 S67 S69 S71 S72 S73 S74 S75 S77 S78 S80 S81 S82 S83 S84 S85 S86 S87 S88
	S89 S91 S92 S93 S96 S97 S98 S99 S100 S101 S104 S105 S106 S107 S109 S111 S113 S114
	S115 S116 S117 S118 S119 S120 S124 S125 S126 S127 S128`)

const securitySuite = "e2e/security"

// docs/security.md has one row for each requirement. The tests in it exist, and it has
// all tests of the security suite.
func TestSecurityPageListsRequirementsAndTests(t *testing.T) {
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
	for s, texts := range rows {
		if !slices.Contains(requirements, s) {
			t.Errorf("got a row for %s, want only requirements", s)
		}
		for _, missing := range missingTests(s, texts[0], tests) {
			t.Errorf("%s: got %s, want an existing test", s, missing)
		}
	}
	number := regexp.MustCompile(`^Test(S\d+)`)
	for name := range tests[securitySuite] {
		if m := number.FindStringSubmatch(name); m != nil && (len(rows[m[1]]) == 0 || !strings.Contains(rows[m[1]][0], "Test"+m[1]+"…")) {
			t.Errorf("%s: got no row with Test%s…", name, m[1])
		}
	}
}

func TestSecurityPageCheckFindsMistakes(t *testing.T) {
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
			t.Errorf("%s: got missing tests %q, want %d", row, got, want)
		}
	}
	rows := securityRows("| S01 | a |\n| S01 | b |\nS02 | c |\n")
	if len(rows["S01"]) != 2 || len(rows) != 1 {
		t.Errorf("got rows %q, want two of S01", rows)
	}
}

// securityRows returns the rows of all tables by the number in their first cell.
func securityRows(page string) map[string][]string {
	rows := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (S\d+) (\|.*)$`).FindAllStringSubmatch(page, -1) {
		rows[m[1]] = append(rows[m[1]], m[2])
	}
	return rows
}

// missingTests returns the tests in the last cell of a row that do not exist. A name
// belongs to the directory in backquotes before it. A name that ends in … matches the
// tests of the security suite that begin with it.
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

// hasPrefix reports whether a test's name begins with the prefix, followed by no digit.
func hasPrefix(tests map[string]bool, prefix string) bool {
	for name := range tests {
		rest, ok := strings.CutPrefix(name, prefix)
		if ok && (rest == "" || rest[0] < '0' || rest[0] > '9') {
			return true
		}
	}
	return false
}

// testsByDir returns all functions in test files of the repository, by directory. It
// includes the other modules of the repository.
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

func TestDependencyPageListsDirectDependencies(t *testing.T) {
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
			t.Errorf("%s: got no row", m[1])
		}
	}
}

// docs/keys.md explains log messages. The parts of each quoted message between "…" are
// in the code.
func TestKeyPageQuotesLogMessages(t *testing.T) {
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
