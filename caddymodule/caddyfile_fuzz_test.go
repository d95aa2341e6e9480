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

// FuzzCaddyfile: whatever stands in our block, it becomes one
// configuration, or an error that names file and line.
func FuzzCaddyfile(f *testing.F) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		f.Fatalf("%d golden files, %v", len(files), err)
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
				t.Errorf("%q means something else the second time: %v\n%s\n%s", block, err, first, again)
			}
			if !json.Valid(first) {
				t.Errorf("%q becomes %q", block, first)
			}
			return
		}
		if !at.MatchString(err.Error()) {
			t.Errorf("%q: the error names no line: %v", block, err)
		}
	})
}

// parseBlock parses a directive with a block of these lines, and marshals what
// becomes of it. What a stray brace leaves behind the block is not ours.
func parseBlock(lines string) ([]byte, error) {
	tokens, err := caddyfile.Tokenize([]byte(directive+" {\n"+lines+"\n}\n"), "Caddyfile")
	if err != nil {
		return nil, fmt.Errorf("Caddyfile:0: %w", err) // by the lexer, before we see anything
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
