package caddymodule

import (
	"net/http"
	"strings"
	"testing"
)

// A directive in a block for a path does not see its callback, unless path_prefix is in
// the block. Where that is known, the log says so at start.
func TestUnroutedCallbackIsReportedAtStart(t *testing.T) {
	for name, tc := range map[string]struct {
		site   string
		warned bool
	}{
		"handle":                       {"handle /app1/* {\n$login\n}", true},
		"handle_path":                  {"handle_path /app1/* {\n$login\n}", true},
		"route":                        {"route /app1/* {\n$login\n}", true},
		"a named matcher":              {"@app {\npath /app1/* /app2/*\nmethod GET\n}\nhandle @app {\n$login\n}", true},
		"nested blocks":                {"handle /app1/* {\nhandle /app1/x/* {\n$prefix\n}\n}", true},
		"with path_prefix":             {"handle /app1/* {\n$prefix\n}", false},
		"handle_path with path_prefix": {"handle_path /app1/* {\n$prefix\n}", false},
		"handle_path, nested":          {"handle_path /app1/* {\nhandle /x/* {\n$prefix\n}\n}", false},
		"the directive's own matcher":  {"@app path /app1/*\n$matched", false},
		"another of the login":         {"@site not path /app1/*\noauth_session @site {\n$options\n}\nhandle /app1/* {\n$login\n}", false},
		"no block":                     {"$login", false},
		"not a path":                   {"@app not path /app1/*\nhandle @app {\n$login\n}", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			text := strings.NewReplacer("$login", "oauth_session {\n"+loginOptions+"\n}", "$prefix", "oauth_session {\n"+loginOptions+"\npath_prefix /app1/oauth2\n}",
				"$matched", "oauth_session @app {\n"+loginOptions+"\n}", "$options", loginOptions).Replace(tc.site)
			w.load("http://localhost:{$PORT} {\n" + text + "\n}\n")
			if lines := captured.lines(`"level":"warn"`, "/callback"); (len(lines) == 1) != tc.warned || len(lines) > 1 {
				t.Errorf("got warnings %q, want one is %v", lines, tc.warned)
			}
		})
	}
}

// A login of such a directive ends at an answer of something else. The log says what to
// check when the user tries again; the start has said it before.
func TestLoginWhoseCallbackGoesElsewhereIsExplained(t *testing.T) {
	for name, block := range map[string]string{"handle": "handle /app1/*", "handle_path": "handle_path /app1/*", "route": "route /app1/*"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("http://localhost:{$PORT} {\n" + block + " {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\nrespond \"of another app\" 404\n}\n")
			b := newBrowser(t, w.origin)
			for range 3 {
				if a := b.visit("/app1/x"); a.status != 404 || a.body != "of another app" {
					t.Fatalf("got status %d: %s, want the answer of the other app", a.status, a.body)
				}
			}
			line := captured.wait(t, `"level":"warn"`, "no callback has reached", "path_prefix", w.origin+"/oauth2/callback")
			if lines := captured.lines("no callback has reached"); len(lines) != 1 {
				t.Errorf("got log lines %q, want one a minute", lines)
			}
			if strings.Contains(line, "state=") || strings.Contains(line, "code=") {
				t.Errorf("got %s, want no parameters of the login", line)
			}
		})
	}
}

// A path below path_prefix belongs to the directive. Its 404 says so, to people and
// programs.
func TestUnknownEndpointNamesPathPrefix(t *testing.T) {
	w := newWorld(t)
	w.load(site("path_prefix /app1/auth", ""))
	b := newBrowser(t, w.origin)
	for _, path := range []string{"/app1/auth/app2/callback", "/app1/auth/index.html", "/app1/auth/"} {
		for _, header := range []http.Header{navigation, {"Accept": {"*/*"}}} {
			a := b.send(http.MethodGet, path, header)
			if a.status != http.StatusNotFound || !strings.Contains(a.body, "path_prefix") || !strings.Contains(a.body, "/app1/auth") {
				t.Errorf("%s: got status %d: %s, want a 404 that says what to check", path, a.status, a.body)
			}
		}
	}
	captured.wait(t, "no endpoint has this address", "path_prefix", "handle")
}
