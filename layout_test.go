package caddyoauthsession_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/oauth-session/caddy-oauth-session"

// A layer says what the packages of one directory may import besides the standard
// library.
type layer struct {
	ours  []string // packages of this module, exactly
	other []string // prefixes of import paths of other modules
	not   []string // packages of the standard library that do not belong there
}

// noWire are the packages that a layer without HTTP and logs does not import.
var noWire = []string{"net/http", "net/url", "log", "log/slog"}

// layers has the import directions:
//
//	caddymodule → handler → {oauth, session/keeper}
//	session/keeper → session/seal → session ← the stores
//
// Only caddymodule imports Caddy. The rule of a directory is that of the longest
// path here which contains it.
var layers = map[string]layer{
	".": {ours: []string{"caddymodule"}},
	"caddymodule": {
		ours:  []string{"handler", "oauth", "session", "session/bolt", "session/keeper", "session/memory", "session/redis", "session/seal"},
		other: []string{"github.com/caddyserver/caddy/v2", "github.com/prometheus/client_golang/prometheus", "github.com/spf13/cobra", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/trace", "go.uber.org/zap", "golang.org/x/sync/singleflight"},
	},
	"handler": {
		ours:  []string{"oauth", "session", "session/keeper", "session/seal"},
		other: []string{"go.uber.org/zap", "golang.org/x/net/idna", "golang.org/x/text/unicode/norm"},
	},
	"oauth":             {ours: []string{"internal/tlskeys"}, other: []string{"github.com/golang-jwt/jwt/v5", "github.com/go-jose/go-jose/v4"}, not: []string{"net/http/httputil", "log", "log/slog"}},
	"session":           {not: noWire},
	"session/seal":      {ours: []string{"session"}, not: noWire},
	"session/keeper":    {ours: []string{"session", "session/seal"}, not: noWire},
	"session/bolt":      {ours: []string{"session"}, other: []string{"go.etcd.io/bbolt"}, not: noWire},
	"session/memory":    {ours: []string{"session"}, not: noWire},
	"session/redis":     {ours: []string{"internal/tlskeys", "session"}, other: []string{"github.com/redis/rueidis"}, not: noWire},
	"session/storetest": {ours: []string{"session"}, not: noWire},
	"internal":          {ours: []string{"internal/fakeas"}, other: []string{"github.com/golang-jwt/jwt/v5"}},
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
		dir := filepath.ToSlash(filepath.Dir(path))
		for _, imported := range imports(t, path) {
			if !allowed(dir, imported) {
				t.Errorf("%s imports %s, which %s must not", path, imported, dir)
			}
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
		{"session", module + "/session/seal"},
		{"session", "net/http"},
		{"session/seal", module + "/session/keeper"},
		{"session/keeper", module + "/session/bolt"},
		{"session/keeper", "net/http"},
		{"session/redis", module + "/session/keeper"},
		{"session/redis", "go.etcd.io/bbolt"},
		{"oauth", module + "/session"},
		{"oauth", "github.com/caddyserver/caddy/v2"},
		{"handler", "github.com/caddyserver/caddy/v2"},
		{"handler", module + "/caddymodule"},
		{"handler", module + "/session/redis"},
		{"caddymodule", module + "/internal/fakeas"},
		{"internal", module + "/oauth"},
		{"nowhere", module + "/oauth"},
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

func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range f.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, imported)
	}
	return paths
}

// layerOf returns the rule for the packages of a directory.
func layerOf(dir string) layer {
	for dir != "." {
		if l, ok := layers[dir]; ok {
			return l
		}
		if dir = path.Dir(dir); dir == "." {
			return layer{} // nothing is allowed
		}
	}
	return layers["."]
}

func allowed(dir, imported string) bool {
	l := layerOf(dir)
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		return slices.Contains(l.ours, ours)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") { // the standard library
		return !slices.Contains(l.not, imported)
	}
	return slices.ContainsFunc(l.other, func(prefix string) bool {
		return imported == prefix || strings.HasPrefix(imported, prefix+"/")
	})
}
