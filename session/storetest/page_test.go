package storetest_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

const page = "../../docs/writing-a-store.md"

// TestPageShowsTheExample compares the page with the store that this package tests.
func TestPageShowsTheExample(t *testing.T) {
	text := read(t, page)
	_, block, found := strings.Cut(text, "\n```go\n")
	block, rest, closed := strings.Cut(block, "\n```\n")
	if !found || !closed || strings.Contains(rest, "```go") {
		t.Fatalf("%s: want exactly one block of Go", page)
	}
	source := read(t, "example_store_test.go")
	// On the page, the package can be copied.
	want := strings.Replace(source, "package storetest_test\n", "package example\n", 1)
	got := block + "\n"
	if got == want {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("line %d of the page's block: got %q, want %q of example_store_test.go", i+1, gotLines[i], wantLines[i])
		}
	}
	t.Errorf("page's block: got %d lines, want %d of example_store_test.go", len(gotLines), len(wantLines))
}

// TestCaddyAcceptsTheExample as a store module.
func TestCaddyAcceptsTheExample(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_DATA_HOME", dir) // for the default key
	t.Setenv("XDG_CONFIG_HOME", dir)
	for _, tc := range []struct{ store, want string }{
		{"example", ""},
		{"example blue", ""},
		{"example blue green", "unexpected 'green'"},
		{"sample", "no store 'sample'"},
	} {
		err := validate("http://localhost {\n oauth_session {\n issuer https://as.example\n client_id app\n store " + tc.store + "\n }\n}")
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("store %s: got error %v, want nil", tc.store, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("store %s: got error %v, want one with %q", tc.store, err, tc.want)
		}
	}
}

func validate(text string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		return err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		return err
	}
	return caddy.Validate(&config)
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
