package caddymodule

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files from what the code says now")

const goldenSeparator = "----------\n"

// golden reads a file: a Caddyfile, a line of dashes, and the JSON or the error
// that becomes of it.
func golden(t *testing.T, file string) (caddyfile, want string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	caddyfile, want, ok := strings.Cut(string(content), goldenSeparator)
	if !ok {
		t.Fatalf("%s has no line of dashes", file)
	}
	return caddyfile, want
}

func goldenFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	return files
}

func TestCaddyfileAdaptsToGoldenJSON(t *testing.T) {
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			text, want := golden(t, file)
			got := adaptToText(t, text)
			if *update {
				if err := os.WriteFile(file, []byte(text+goldenSeparator+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			wrong := !strings.HasPrefix(got, "{\n")
			if named := strings.HasPrefix(filepath.Base(file), "error_"); named != wrong {
				t.Errorf("files of errors, and no others, are called error_…")
			}
			if wrong && !strings.Contains(got, ", at Caddyfile:") {
				t.Error("the error does not name file and line")
			}
		})
	}
}

// adapted is the indented JSON of a Caddyfile, or the text of the error.
func adaptToText(t *testing.T, text string) string {
	t.Helper()
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error() + "\n"
	}
	if len(warnings) > 0 {
		t.Errorf("warnings: %v", warnings)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, out, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return indented.String() + "\n"
}

// Every option of the Caddyfile and every field of the JSON occurs in a golden
// file; they have the same names.
func TestGoldenFilesCoverEveryOption(t *testing.T) {
	var names []string
	var collect func(reflect.Type)
	collect = func(s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				names = append(names, name)
			}
			ft := f.Type
			for ft.Kind() == reflect.Pointer || ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
				ft = ft.Elem()
			}
			if f.IsExported() && ft.Kind() == reflect.Struct {
				collect(ft)
			}
		}
	}
	collect(reflect.TypeFor[Handler]())
	var all strings.Builder
	for _, file := range goldenFiles(t) {
		if !strings.HasPrefix(filepath.Base(file), "error_") {
			text, want := golden(t, file)
			all.WriteString(text + want)
		}
	}
	for _, name := range names {
		if !strings.Contains(all.String(), fmt.Sprintf("%q:", name)) {
			t.Errorf("field %s is in no golden file", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(names, name) {
			t.Errorf("option %s has no field of that name", name)
		}
		if !strings.Contains(all.String(), "\t"+name) {
			t.Errorf("option %s is in no golden file", name)
		}
	}
}

// validArguments has each option as it should be. What is done to it is said below.
var validArguments = map[string]string{
	"issuer": "https://login.example.com", "discovery_url": "https://login.example.com/metadata",
	"authorization_endpoint": "https://login.example.com/authorize", "token_endpoint": "https://login.example.com/token",
	"userinfo_endpoint": "https://login.example.com/userinfo", "jwks_uri": "https://login.example.com/jwks",
	"revocation_endpoint": "https://login.example.com/revoke", "end_session_endpoint": "https://login.example.com/logout",
	"pushed_authorization_request_endpoint": "https://login.example.com/par",
	"base_url":                              "https://app.example.com", "post_logout_redirect": "https://example.com/bye",
	"client_id": "app", "client_secret": "{env.CLIENT_SECRET}", "audience": "api",
	"token_endpoint_auth_method": "client_secret_post", "authorization": "replace", "path_prefix": "/auth",
	"trusted_ca": "/etc/ca.pem", "scope": "openid", "resource": "https://api.example.com", "key": "{env.KEY}",
	"trusted_origins": "https://admin.example.com",
	"authorize_param": "prompt consent", "token_param": "a b", "refresh_param": "a b",
	"idle_timeout": "1h", "max_lifetime": "1h", "refresh_timeout": "5s",
	"userinfo": "", "header": "X-Token {token}", "store": "memory", "cookie": "{\nname __Host-s\n}", "optional": "/public*",
	"require": "groups admins", "refresh_if_older": "/pay/* 1m", "retry_unauthorized": "",
}

// Each option refuses what it cannot mean, and the error names the line and
// says what to write.
func TestMalformedOptionLinesAreRefused(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		args, ok := validArguments[name]
		if !ok {
			t.Errorf("there is no good line for %s", name)
			continue
		}
		good := strings.TrimSpace(name + " " + args)
		if err := parseLines(name, good); err != nil {
			t.Errorf("%q is refused: %v", good, err)
		}
		for how, wrong := range malformedLines(name, args, good) {
			t.Run(name+" "+how, func(t *testing.T) {
				err := parseLines(name, wrong.lines)
				if err == nil {
					t.Fatalf("accepted:\n%s", wrong.lines)
				}
				// The first line of a block is the third of the file.
				if at := fmt.Sprintf(", at Caddyfile:%d", wrong.line+2); !strings.HasSuffix(err.Error(), at) {
					t.Errorf("the error does not end in %q: %v", at, err)
				}
				if text := strings.ToLower(err.Error()); !strings.Contains(text, name) || !strings.Contains(text, "write ") && !strings.Contains(text, "it is given once, as "+name) {
					t.Errorf("the error does not say what to write: %v", err)
				}
			})
		}
	}
}

// malformed are lines, of which one is wrong.
type malformed struct {
	lines string
	line  int
}

// malformedLines makes wrong lines of a good one.
func malformedLines(name, args, good string) map[string]malformed {
	list := slices.Contains([]string{"trusted_ca", "scope", "resource", "key", "trusted_origins", "require"}, name)
	ways := map[string]malformed{"with a block": {good + " {\nx y\n}", 2}}
	switch name {
	case "cookie":
		ways["with a block"] = malformed{"cookie {\nx y\n}", 2}
	case "store":
		ways["with a block"] = malformed{"store bolt {\nx y\n}", 2}
	}
	if !options[name].repeats {
		ways["repeated"] = malformed{good + "\n" + good, 2 + strings.Count(good, "\n")}
	}
	if validArguments[name] != "" && name != "optional" && name != "cookie" {
		ways["without argument"] = malformed{name, 1}
		ways["empty"] = malformed{name + ` ""`, 1}
	}
	if first, rest, ok := strings.Cut(args, " "); ok && name != "cookie" {
		ways["one argument missing"] = malformed{name + " " + first, 1}
		ways["empty name"] = malformed{name + ` "" ` + rest, 1}
	}
	if list {
		ways["one of them empty"] = malformed{good + ` ""`, 1}
	} else {
		ways["one argument more"] = malformed{strings.Replace(good, name, name+" surplus", 1), 1}
	}
	return ways
}

// parseLines adapts a site with these lines about an option, and whatever else
// it needs behind them.
func parseLines(name, lines string) error {
	for _, needed := range []string{"issuer", "client_id", "client_secret"} {
		if needed != name {
			lines += "\n" + needed + " " + validArguments[needed]
		}
	}
	_, err := adapt("http://localhost {\noauth_session {\n" + lines + "\n}\n}\n")
	return err
}
