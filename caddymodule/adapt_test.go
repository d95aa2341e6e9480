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

var update = flag.Bool("update", false, "rewrite the golden files with the current output")

const goldenSeparator = "----------\n"

// readGolden reads a golden file: a Caddyfile, a line of dashes, and the expected
// JSON or error.
func readGolden(t *testing.T, file string) (caddyfile, want string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	caddyfile, want, ok := strings.Cut(string(content), goldenSeparator)
	if !ok {
		t.Fatalf("%s: got no line of dashes", file)
	}
	return caddyfile, want
}

func goldenFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d golden files, error %v", len(files), err)
	}
	return files
}

func TestCaddyfileAdaptsToGoldenJSON(t *testing.T) {
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			text, want := readGolden(t, file)
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
			isError := !strings.HasPrefix(got, "{\n")
			if named := strings.HasPrefix(filepath.Base(file), "error_"); named != isError {
				t.Errorf("got a file name with error_ %v, want %v", named, isError)
			}
			if isError && !strings.Contains(got, ", at Caddyfile:") {
				t.Errorf("got %q, want an error with file and line", got)
			}
		})
	}
}

// adaptToText returns the indented JSON of a Caddyfile, or the text of the error.
func adaptToText(t *testing.T, text string) string {
	t.Helper()
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error() + "\n"
	}
	if len(warnings) > 0 {
		t.Errorf("got warnings %v, want none", warnings)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, out, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return indented.String() + "\n"
}

// Each option and each JSON field occurs in a golden file. Both have the same names.
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
			text, want := readGolden(t, file)
			all.WriteString(text + want)
		}
	}
	for _, name := range names {
		if !strings.Contains(all.String(), fmt.Sprintf("%q:", name)) {
			t.Errorf("got no golden file with the field %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(names, name) {
			t.Errorf("got no field for the option %s", name)
		}
		if !strings.Contains(all.String(), "\t"+name) {
			t.Errorf("got no golden file with the option %s", name)
		}
	}
}

// validArguments has the arguments of a valid line for each option.
var validArguments = map[string]string{
	"issuer": "https://login.example.com", "discovery_url": "https://login.example.com/metadata",
	"authorization_endpoint": "https://login.example.com/authorize", "token_endpoint": "https://login.example.com/token",
	"userinfo_endpoint": "https://login.example.com/userinfo", "jwks_uri": "https://login.example.com/jwks",
	"revocation_endpoint": "https://login.example.com/revoke", "end_session_endpoint": "https://login.example.com/logout",
	"pushed_authorization_request_endpoint": "https://login.example.com/par",
	"base_url":                              "https://app.example.com", "post_logout_redirect": "https://example.com/bye",
	"client_id": "app", "client_secret": "{env.CLIENT_SECRET}", "audience": "api",
	"client_key": "/etc/client.pem", "client_assertion": "/run/token jwt-spiffe", "assertion_audience": "token_endpoint",
	"token_endpoint_auth_method": "client_secret_post", "authorization": "replace", "path_prefix": "/auth",
	"id_token_signed_response_alg": "ES256", "trusted_audiences": "api",
	"trusted_ca": "/etc/ca.pem", "scope": "openid", "resource": "https://api.example.com", "key": "{env.KEY}",
	"trusted_origins": "https://admin.example.com",
	"response_mode":   "form_post", "login_param": "kc_idp_hint",
	"authorize_param": "prompt consent", "token_param": "a b", "refresh_param": "a b",
	"idle_timeout": "1h", "max_lifetime": "1h", "refresh_timeout": "5s",
	"userinfo": "", "header": "X-Token {token}", "store": "memory", "cookie": "{\nname __Host-s\n}", "optional": "/public*",
	"require": "groups admins", "refresh_if_older": "/pay/* 1m", "retry_unauthorized": "", "frontchannel_logout": "", "id_token_hint": "off",
	"idle_ignore": "/poll*", "stream_token_expiry": "close", "session_limit": "3",
}

// The error of a malformed line ends in the file and line, and shows the syntax.
func TestMalformedOptionLinesAreRefused(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		args, ok := validArguments[name]
		if !ok {
			t.Errorf("got no valid arguments for %s", name)
			continue
		}
		valid := strings.TrimSpace(name + " " + args)
		if err := parseLines(name, valid); err != nil {
			t.Errorf("%q: got error %v, want none", valid, err)
		}
		for mistake, m := range malformedLines(name, args, valid) {
			t.Run(name+" "+mistake, func(t *testing.T) {
				err := parseLines(name, m.lines)
				if err == nil {
					t.Fatalf("got no error for:\n%s", m.lines)
				}
				// The first line of a block is the third of the file.
				if at := fmt.Sprintf(", at Caddyfile:%d", m.line+2); !strings.HasSuffix(err.Error(), at) {
					t.Errorf("got error %v, want one that ends in %q", err, at)
				}
				if text := strings.ToLower(err.Error()); !strings.Contains(text, name) || !strings.Contains(text, "write ") && !strings.Contains(text, "it is given once, as "+name) {
					t.Errorf("got error %v, want one with the option and its syntax", err)
				}
			})
		}
	}
}

// malformed holds lines of a block with one mistake.
type malformed struct {
	lines string
	line  int // of the mistake, from 1
}

// malformedLines derives malformed lines from a valid one, by the kind of mistake.
func malformedLines(name, args, valid string) map[string]malformed {
	list := slices.Contains([]string{"trusted_ca", "scope", "resource", "key", "trusted_origins", "trusted_audiences", "require", "login_param"}, name)
	ways := map[string]malformed{"with a block": {valid + " {\nx y\n}", 2}}
	switch name {
	case "cookie":
		ways["with a block"] = malformed{"cookie {\nx y\n}", 2}
	case "store":
		ways["with a block"] = malformed{"store bolt {\nx y\n}", 2}
	}
	if !options[name].repeats {
		ways["repeated"] = malformed{valid + "\n" + valid, 2 + strings.Count(valid, "\n")}
	}
	if validArguments[name] != "" && name != "optional" && name != "cookie" {
		ways["without argument"] = malformed{name, 1}
		ways["empty"] = malformed{name + ` ""`, 1}
	}
	if first, rest, ok := strings.Cut(args, " "); ok && name != "cookie" {
		ways["one argument missing"] = malformed{name + " " + first, 1}
		ways["empty name"] = malformed{name + ` "" ` + rest, 1}
	}
	if name == "client_assertion" { // the type is optional
		delete(ways, "one argument missing")
	}
	if list {
		ways["one of them empty"] = malformed{valid + ` ""`, 1}
	} else {
		ways["one argument more"] = malformed{strings.Replace(valid, name, name+" surplus", 1), 1}
	}
	return ways
}

// parseLines adapts a site with lines of one option, followed by the required options.
func parseLines(name, lines string) error {
	for _, needed := range []string{"issuer", "client_id", "client_secret"} {
		replaced := needed == "client_secret" && (name == "client_key" || name == "client_assertion")
		if needed != name && !replaced {
			lines += "\n" + needed + " " + validArguments[needed]
		}
	}
	_, err := adapt("http://localhost {\noauth_session {\n" + lines + "\n}\n}\n")
	return err
}
