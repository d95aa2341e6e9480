package caddymodule

import (
	"strings"
	"testing"
)

// A directive that Caddy runs before oauth_session cannot know the user. Where that is
// certain, the log says so at start.
func TestDirectiveThatReadsTheUserTooEarlyIsReportedAtStart(t *testing.T) {
	const user = "{http.auth.user.id}"
	for name, tc := range map[string]struct{ site, directive string }{
		"redir":                           {"redir /me /users/" + user + "\n$login", "redir"},
		"header":                          {"header X-U " + user + "\n$login", "header"},
		"header of a claim":               {"header /a/* X-Mail {http.auth.user.email}\n$login", "header"},
		"rewrite":                         {"rewrite /me /users/" + user + "\n$login", "rewrite"},
		"vars":                            {"vars who " + user + "\n$login", "vars"},
		"root":                            {"root /srv/" + user + "\n$login", "root"},
		"before a block":                  {"redir /me /users/" + user + "\nhandle /app1/* {\n$login\n}", "redir"},
		"in a route":                      {"route {\nheader X-U " + user + "\n$login\n}", "header"},
		"behind directives without users": {"encode gzip\nlog_append a b\nheader X-U " + user + "\n$login", "header"},

		"after oauth_session":              {"route {\n$login\nredir /me /users/" + user + "\nheader X-U " + user + "\n}", ""},
		"header with the answer":           {"header >X-U " + user + "\n$login", ""},
		"log_append":                       {"log_append who " + user + "\n$login", ""},
		"map from the user":                {"map " + user + " {role} {\nalice admin\ndefault none\n}\n$login", ""},
		"map to the user":                  {"map {host} " + user + " {\ndefault carol\n}\nheader X-U " + user + "\n$login", ""},
		"vars sets the user":               {"vars http.auth.user.id bob\nroute {\nheader X-U " + user + "\n$login\n}", ""},
		"basic_auth before it":             {"route {\nbasic_auth {\nbob $2a$04$JHGBaj1hKsETFjQ/PPnj6OoUDQdPtq.nrHikLWMiMYrRGMRxv9u3K\n}\nheader X-U " + user + "\n$login\n}", ""},
		"basic_auth around the route":      {"route {\nbasic_auth {\nbob $2a$04$JHGBaj1hKsETFjQ/PPnj6OoUDQdPtq.nrHikLWMiMYrRGMRxv9u3K\n}\nroute {\nheader X-U " + user + "\n$login\n}\n}", ""},
		"between two oauth_session":        {"route {\n$login\nheader X-U " + user + "\n$login\n}", ""},
		"another block":                    {"handle /other/* {\nredir /me /users/" + user + "\n}\nhandle {\n$login\n}", ""},
		"header that names no placeholder": {"header X-U http.auth.user.id\n$login", ""},
	} {
		for _, host := range []string{"http://localhost:{$PORT}", "http://:{$PORT}"} {
			t.Run(name+" at "+host, func(t *testing.T) {
				w := newWorld(t)
				w.load(host + " {\n" + strings.ReplaceAll(tc.site, "$login", "oauth_session {\n"+loginOptions+"\n}") + "\n}\n")
				lines := captured.lines(`"level":"warn"`, "runs before oauth_session")
				switch {
				case tc.directive == "" && lines != nil:
					t.Errorf("got warnings %q, want none", lines)
				case tc.directive != "" && (len(lines) != 1 || !strings.Contains(lines[0], tc.directive) || !strings.Contains(lines[0], "route block")):
					t.Errorf("got warnings %q, want one that names %s and the remedy", lines, tc.directive)
				}
			})
		}
	}
}
