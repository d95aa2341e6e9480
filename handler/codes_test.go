package handler

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestListsOfCodesAreComplete: metrics show each code as zero from the start, so a new one
// must be in the lists.
func TestListsOfCodesAreComplete(t *testing.T) {
	codes, logins := map[string]bool{"invalid_logout": true}, map[string]bool{"completed": true, "restarted": true}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	assigned := regexp.MustCompile(`\be\.Code(?:, e\.\w+)* = (?:[^"\n]*, )?"([a-z_]+)"`)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, "e.Code") && !strings.Contains(line, "misconfigured") {
				if m := assigned.FindStringSubmatch(line); m != nil {
					codes[m[1]] = true
				}
			}
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if literal, ok := n.(*ast.CompositeLit); ok {
				if code, login := errorLiteral(literal); code != "" {
					codes[code] = true
					if login {
						logins[code] = true
					}
				}
			}
			return true
		})
	}
	if diff := cmp.Diff(sortedKeys(codes), slices.Sorted(slices.Values(RefusalCodes()))); diff != "" {
		t.Errorf("RefusalCodes (-code +list):\n%s", diff)
	}
	if diff := cmp.Diff(sortedKeys(logins), slices.Sorted(slices.Values(LoginResults()))); diff != "" {
		t.Errorf("LoginResults (-code +list):\n%s", diff)
	}
}

// errorLiteral returns the code of an Error in the source, and whether it ends a login.
func errorLiteral(literal *ast.CompositeLit) (code string, login bool) {
	if name, ok := literal.Type.(*ast.Ident); !ok || name.Name != "Error" {
		return "", false
	}
	for _, element := range literal.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		switch pair.Key.(*ast.Ident).Name {
		case "Code":
			switch value := pair.Value.(type) {
			case *ast.BasicLit:
				code, _ = strconv.Unquote(value.Value)
			case *ast.Ident:
				code = map[string]string{"accessDenied": accessDenied}[value.Name]
			}
		case "login":
			login = true
		}
	}
	return code, login
}

func sortedKeys(set map[string]bool) []string {
	var keys []string
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
