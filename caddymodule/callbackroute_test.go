package caddymodule

import (
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
