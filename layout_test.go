package caddyoauthsession_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/oauth-session/caddy-oauth-session"

// layers says what each part of the project may import besides the standard
// library and itself. Imports go one way: caddymodule → handler → {oauth,
// session}; only caddymodule knows Caddy.
var layers = map[string]struct {
	may []string // import path prefixes
	not []string // packages of the standard library that do not belong there
}{
	".":           {may: []string{module + "/caddymodule"}},
	"caddymodule": {may: []string{module + "/handler", module + "/oauth", module + "/session", "github.com/caddyserver/caddy/v2", "github.com/prometheus/client_golang/prometheus", "github.com/spf13/cobra", "go.uber.org/zap"}},
	"handler":     {may: []string{module + "/oauth", module + "/session", "go.uber.org/zap", "golang.org/x/text/unicode/norm"}},
	"oauth":       {may: []string{module + "/internal/tlskeys", "github.com/golang-jwt/jwt/v5", "github.com/go-jose/go-jose/v4"}, not: []string{"net/http/httputil", "log", "log/slog"}},
	"session":     {may: []string{module + "/internal/tlskeys", "go.etcd.io/bbolt", "github.com/redis/rueidis"}, not: []string{"net/http", "net/url", "log", "log/slog"}},
	"internal":    {may: []string{"github.com/golang-jwt/jwt/v5"}},
}

// TestLayout enforces the import directions.
func TestLayout(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || nestedModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		for _, broken := range brokenImports(t, path) {
			t.Error(broken)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 40 {
		t.Errorf("only %d files were looked at: the test does not see the project", files)
	}
}

// TestLayoutSeesABreach shows that the test above can fail.
func TestLayoutSeesABreach(t *testing.T) {
	for _, tc := range []struct{ dir, path string }{
		{"session", module + "/oauth"},
		{"session", "net/http"},
		{"oauth", module + "/session"},
		{"oauth", "github.com/caddyserver/caddy/v2"},
		{"handler", "github.com/caddyserver/caddy/v2"},
		{"handler", module + "/caddymodule"},
		{"caddymodule", module + "/internal/fakeas"},
		{"internal", module + "/oauth"},
	} {
		if allowed(tc.dir, tc.path) {
			t.Errorf("%s may import %s", tc.dir, tc.path)
		}
	}
}

func nestedModule(dir string) bool {
	matches, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(matches) > 0
}

func brokenImports(t *testing.T, path string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	layer, _, _ := strings.Cut(filepath.ToSlash(filepath.Dir(path)), "/")
	var broken []string
	for _, spec := range f.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if !allowed(layer, imported) {
			broken = append(broken, path+" imports "+imported+", which "+layer+" must not know")
		}
	}
	return broken
}

func allowed(layer, imported string) bool {
	rules, ok := layers[layer]
	if !ok {
		return false
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") { // the standard library
		for _, n := range rules.not {
			if imported == n {
				return false
			}
		}
		return true
	}
	for _, prefix := range append(rules.may, module+"/"+layer) {
		if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
			return true
		}
	}
	// A store passes the suite of its own layer, which is no product code.
	return false
}
