package caddyoauthsession_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const architecturePage = "docs/architecture.md"

// The diagram of the page has the imports between the product's packages. Each file and
// test in the page exists.
func TestArchitecturePageMatchesCode(t *testing.T) {
	text, err := os.ReadFile(architecturePage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	drawn, actual := drawnImports(page), actualImports(t)
	for _, arrow := range actual {
		if !slices.Contains(drawn, arrow) {
			t.Errorf("got no %s in the diagram, want all imports", arrow)
		}
	}
	for _, arrow := range drawn {
		if !slices.Contains(actual, arrow) {
			t.Errorf("got %s in the diagram, want only imports of the code", arrow)
		}
	}
	for _, file := range namedFiles(page) {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("got the file %s in the page, want an existing one", file)
		}
	}
	tests := testsByDir(t)
	for _, missing := range missingNamedTests(page, tests) {
		t.Errorf("got %s in the page, want an existing test", missing)
	}
	if n := strings.Count(page, "\n| 10. "); n != 1 || len(namedFiles(page)) < 40 {
		t.Errorf("got %d rows for promise 10 and %d files, want 1 and more than 40: the test does not see the page", n, len(namedFiles(page)))
	}
}

func TestArchitecturePageCheckFindsMistakes(t *testing.T) {
	if got := drawnImports("    a --> b\n    c/d --> e/f\n"); !slices.Equal(got, []string{"a --> b", "c/d --> e/f"}) {
		t.Errorf("got arrows %q", got)
	}
	if got := namedFiles("`oauth/no.go` and `a.md`"); !slices.Equal(got, []string{"oauth/no.go"}) {
		t.Errorf("got files %q", got)
	}
	tests := map[string]map[string]bool{"a": {"TestX": true}, "e2e/security": {"TestS16Flood": true}}
	if got := missingNamedTests("| `a` TestX, TestY; `e2e/security` TestS16, TestS17 |", tests); !slices.Equal(got, []string{"TestY in a", "TestS17 in e2e/security"}) {
		t.Errorf("got missing tests %q", got)
	}
}

// drawnImports returns the arrows of the page's diagram.
func drawnImports(page string) (arrows []string) {
	for _, m := range regexp.MustCompile(`(?m)^\s+([a-z0-9/]+ --> [a-z0-9/]+)$`).FindAllStringSubmatch(page, -1) {
		arrows = append(arrows, m[1])
	}
	return arrows
}

// actualImports returns the imports between the product's packages.
func actualImports(t *testing.T) (arrows []string) {
	t.Helper()
	for dir := range layers {
		if dir == "." || dir == "internal" {
			continue
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, imported := range imports(t, file) {
				if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(arrows, dir+" --> "+ours) {
					arrows = append(arrows, dir+" --> "+ours)
				}
			}
		}
	}
	return arrows
}

func namedFiles(page string) (files []string) {
	for _, m := range regexp.MustCompile("`([a-z0-9_/]+\\.go)`").FindAllStringSubmatch(page, -1) {
		files = append(files, m[1])
	}
	return files
}

// missingNamedTests returns the tests that a page's tables name and that do not exist. A name
// belongs to the directory in backquotes before it. In the security suite a name with a number
// only, such as TestS16, matches all tests of that number.
func missingNamedTests(page string, tests map[string]map[string]bool) (missing []string) {
	rows := strings.Join(regexp.MustCompile(`(?m)^\|.*$`).FindAllString(page, -1), "\n")
	dir := ""
	for _, m := range regexp.MustCompile("`([a-z0-9/_]+)`|\\b(Test[A-Z]\\w*)").FindAllStringSubmatch(rows, -1) {
		switch {
		case m[1] != "":
			dir = m[1]
		case !tests[dir][m[2]] && (dir != securitySuite || !hasPrefix(tests[dir], m[2])):
			missing = append(missing, m[2]+" in "+dir)
		}
	}
	return missing
}
