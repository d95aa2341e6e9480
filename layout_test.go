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

// A layer lists the allowed imports of the packages in one directory, in addition to the
// standard library.
type layer struct {
	ours  []string // packages of this module, exactly
	other []string // prefixes of import paths of other modules
	not   []string // forbidden packages of the standard library
}

// httpAndLogs are the forbidden packages of layers without HTTP and logs.
var httpAndLogs = []string{"net/http", "net/url", "log", "log/slog"}

// layers holds the allowed imports:
//
//	caddymodule → handler → {oauth, session/keeper}
//	session/keeper → session/seal → session ← the stores
//
// Only caddymodule imports Caddy. A directory without an entry has the rule of its
// nearest parent.
var layers = map[string]layer{
	".": {ours: []string{"caddymodule"}},
	"caddymodule": {
		ours:  []string{"handler", "oauth", "session", "session/bolt", "session/keeper", "session/memory", "session/redis", "session/seal"},
		other: []string{"github.com/caddyserver/caddy/v2", "github.com/prometheus/client_golang/prometheus", "github.com/spf13/cobra", "go.uber.org/zap"},
	},
	"handler": {
		ours:  []string{"oauth", "session", "session/keeper", "session/seal"},
		other: []string{"go.uber.org/zap", "golang.org/x/text/unicode/norm"},
	},
	"oauth":             {ours: []string{"internal/tlskeys"}, other: []string{"github.com/golang-jwt/jwt/v5", "github.com/go-jose/go-jose/v4"}, not: []string{"net/http/httputil", "log", "log/slog"}},
	"session":           {not: httpAndLogs},
	"session/seal":      {ours: []string{"session"}, not: httpAndLogs},
	"session/keeper":    {ours: []string{"session", "session/seal"}, not: httpAndLogs},
	"session/bolt":      {ours: []string{"session"}, other: []string{"go.etcd.io/bbolt"}, not: httpAndLogs},
	"session/memory":    {ours: []string{"session"}, not: httpAndLogs},
	"session/redis":     {ours: []string{"internal/tlskeys", "session"}, other: []string{"github.com/redis/rueidis"}, not: httpAndLogs},
	"session/storetest": {ours: []string{"session"}, not: httpAndLogs},
	"internal":          {ours: []string{"internal/fakeas"}, other: []string{"github.com/golang-jwt/jwt/v5"}},
}

func TestPackagesImportOnlyAllowedPackages(t *testing.T) {
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
				t.Errorf("%s: got import %s, which is not allowed in %s", path, imported, dir)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 40 {
		t.Errorf("got %d files, want at least 40: the test does not find the project", files)
	}
}

func TestLayerCheckFindsForbiddenImports(t *testing.T) {
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
			t.Errorf("%s: got import of %s allowed, want it forbidden", tc.dir, tc.path)
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
