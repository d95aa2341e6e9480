package caddymodule

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// FuzzCaddyfile checks that each block has either one configuration or an error with
// file and line.
func FuzzCaddyfile(f *testing.F) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		f.Fatalf("got %d golden files, error %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if _, block, ok := strings.Cut(string(content), directive+" {\n"); ok {
			block, _, _ = strings.Cut(block, "\n\t}\n")
			f.Add(block)
		}
	}
	const needed = "issuer https://login.example.com\nclient_id app\nclient_secret {env.S}\n"
	for name, args := range validArguments {
		f.Add(needed + name + " " + args)
	}
	for _, block := range []string{"{", "}", "\"", "`", "\\", "#", "cookie {", "store bolt {\npath \"a\nb\"\n}", "a <<X\nb\nX", "issuer\x00", "optional @a", "optional {\n}", "header a {token}{", "store redis { tls {", "\ufeffissuer x", "refresh_if_older @a 1h", "refresh_if_older * -1h"} {
		f.Add(block)
	}
	at := regexp.MustCompile(`Caddyfile:\d+`)
	f.Fuzz(func(t *testing.T, block string) {
		first, err := parseBlock(block)
		if err == nil {
			again, err := parseBlock(block)
			if err != nil || string(first) != string(again) {
				t.Errorf("%q parsed again: got %s, error %v; want %s", block, again, err, first)
			}
			if !json.Valid(first) {
				t.Errorf("%q: got %q, want JSON", block, first)
			}
			return
		}
		if !at.MatchString(err.Error()) {
			t.Errorf("%q: got error %v, want one with a line", block, err)
		}
	})
}

// parseBlock parses a directive with a block and marshals the handler. It ignores text
// after the block, which a stray brace may cause.
func parseBlock(lines string) ([]byte, error) {
	tokens, err := caddyfile.Tokenize([]byte(directive+" {\n"+lines+"\n}\n"), "Caddyfile")
	if err != nil {
		return nil, fmt.Errorf("Caddyfile:0: %w", err) // by Caddy's lexer, before the module parses
	}
	d := caddyfile.NewDispenser(tokens)
	d.Next()
	helper := httpcaddyfile.Helper{Dispenser: d}
	p := &parser{Dispenser: d, handler: new(Handler), matcher: helper.MatcherToken}
	if err := p.parse(); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return json.Marshal(p.handler)
}
