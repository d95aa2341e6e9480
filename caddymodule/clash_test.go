package caddymodule

import (
	"strings"
	"testing"
)

// Two logins on one host need two cookies and two paths. Two directives of one login, and
// logins on hosts of their own, need nothing.
func TestTwoLoginsOnOneHostAreKeptApart(t *testing.T) {
	w := newWorld(t)
	const one, other, apart = "http://one.localhost:{$PORT}", "http://two.localhost:{$PORT}", "path_prefix /b/oauth2\ncookie {\nname __Host-b\n}"
	for _, tc := range []struct {
		name, a, b, optionsA, optionsB string
		want                           string // a text of the error, or "" if all is well
	}{
		{"client", one, "", "client_id a", "client_id b", "client_id b"},
		{"client, another cookie", one, "", "client_id a", "client_id b\ncookie {\nname __Host-b\n}", "the path_prefix /oauth2"},
		{"client, another path_prefix", one, "", "client_id a", "client_id b\npath_prefix /b/oauth2", "the cookie __Host-oauth_session"},
		{"client, the default written out", one, "", "client_id a", "client_id b\ncookie {\nname __Host-oauth_session\n}\npath_prefix /b/oauth2", "the cookie"},
		{"client, a path_prefix below", one, "", "client_id a", "client_id b\npath_prefix /oauth2/b\ncookie {\nname __Host-b\n}", "the path_prefix"},
		{"client, optional", one, "", "client_id a\noptional", "client_id b", "client_id b"},
		{"authorization server", one, "", "client_id a", "client_id a\nissuer https://other.example.com", "https://other.example.com"},
		{"store", one, "", "client_id a", "client_id a\nstore bolt {\npath {$DATA}/x.db\n}", "store bolt"},
		{"key", one, "", "client_id a\nkey " + keyA.Encode(), "client_id a\nkey " + keyB.Encode(), "the cookie"},
		{"a key and none", one, "", "client_id a", "client_id a\nkey " + keyB.Encode(), "the cookie"},
		{"one base_url", one, other, "client_id a\nbase_url https://app.test", "client_id b\nbase_url https://app.test", "the cookie"},
		{"cookie of a domain", "http://a.one.localhost:{$PORT}", "http://b.one.localhost:{$PORT}", "client_id a\ncookie {\ndomain one.localhost\n}", "client_id b\ncookie {\ndomain one.localhost\n}", "the cookie __Secure-oauth_session"},
		{"no host", "http://:{$PORT}", "", "client_id a", "client_id b", "the cookie"},

		{"cookie and path_prefix", one, "", "client_id a", "client_id b\n" + apart, ""},
		{"one login", one, "", "client_id a", "client_id a\nrequire groups admins", ""},
		{"one login, two prefixes", one, "", "client_id a", "client_id a\npath_prefix /b/oauth2", ""},
		{"one login, keys in two orders", one, "", "client_id a\nkey " + keyA.Encode() + " " + keyB.Encode(), "client_id a\nkey " + keyB.Encode() + " " + keyA.Encode(), ""},
		{"other port", one, "http://one.localhost:9", "client_id a", "client_id b", ""},
		{"other port, another cookie", one, "http://one.localhost:9", "client_id a", "client_id b\ncookie {\nname __Host-b\n}", ""},
		{"other host", one, other, "client_id a", "client_id b", ""},
		{"a wildcard", one, "http://*.localhost:{$PORT}", "client_id a", "client_id b", ""},
		{"a catch-all", one, "http://:{$PORT}", "client_id a", "client_id b", ""},
		{"two catch-alls", "http://:{$PORT}", "http://:9", "client_id a", "client_id b", ""},
		{"catch-alls with base_url", "http://:{$PORT}", "http://:9", "client_id a\nbase_url https://a.test", "client_id b\nbase_url https://b.test", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := twoDirectivesCaddyfile(tc.a, tc.b, tc.optionsA, tc.optionsB)
			for _, option := range []string{"client_id app\n", "client_secret {env.SECRET}\n"} {
				text = strings.ReplaceAll(text, option, "")
			}
			for _, option := range []string{"issuer {$ISSUER}\n", "store memory\n"} {
				if name, _, _ := strings.Cut(option, " "); strings.Contains(tc.optionsB, "\n"+name) {
					i := strings.LastIndex(text, option)
					text = text[:i] + text[i+len(option):]
				}
			}
			err := w.validate(text)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case tc.want == "":
			case err == nil:
				t.Errorf("got no error, want one with %q", tc.want)
			case !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "cookie { name … }") || !strings.Contains(err.Error(), "path_prefix"):
				t.Errorf("got error %q, want one with %q and the way out", err, tc.want)
			}
		})
	}
}

// A named route may serve any host, so nothing is known about its handlers.
func TestTwoLoginsInNamedRoutesAreAccepted(t *testing.T) {
	w := newWorld(t)
	route := func(client string) string {
		return "&(" + client + ") {\noauth_session {\nissuer {$ISSUER}\nclient_id " + client + "\nstore memory\n}\n}\n"
	}
	if err := w.validate(route("a") + route("b") + "http://one.localhost:{$PORT} {\ninvoke a\n}\nhttp://two.localhost:{$PORT} {\ninvoke b\n}\n"); err != nil {
		t.Error(err)
	}
}
