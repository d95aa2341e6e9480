package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// loginDirective is a directive of a client with a cookie and endpoints of its own.
func loginDirective(matcher, client string, options ...string) string {
	return "oauth_session " + matcher + " {\nissuer {$ISSUER}\nclient_id " + client + "\nclient_secret {env.SECRET}\nstore memory\npath_prefix /" + client + "/oauth2\ncookie {\nname __Host-" + client + "\n}\n" +
		strings.Join(options, "\n") + "\n}\n"
}

// replaceDirectives writes directives for $words: $outer and $inner have two logins.
func replaceDirectives(text string) string {
	return strings.NewReplacer(
		"$outer", loginDirective("", "outer"), "$inner", loginDirective("", "inner"), "$again", loginDirective("", "outer", "require sub alice"),
		"$site", "http://one.localhost:{$PORT}", "$other", "http://two.localhost:{$PORT}",
	).Replace(text)
}

// Requests that must have the sessions of two logins can never be answered. The error
// names both logins, and what to write.
func TestNestedLoginsAreRefused(t *testing.T) {
	w := newWorld(t)
	const exclude = "not path /admin/*"
	for name, tc := range map[string]struct{ text, want string }{
		"handle_path":                {"$site {\n$outer handle_path /admin/* {\n$inner}\n}", exclude},
		"handle":                     {"$site {\n$outer handle /admin/* {\n$inner}\n}", exclude},
		"route":                      {"$site {\n$outer route /admin/* {\n$inner}\n}", exclude},
		"two blocks":                 {"$site {\n$outer handle_path /admin/* {\nhandle /sub/* {\n$inner}\n}\n}", exclude},
		"one after the other":        {"$site {\nroute {\n$outer $inner}\n}", "not path /area/*"},
		"in one block":               {"$site {\nhandle /x/* {\n$outer handle /x/y/* {\n$inner}\n}\n}", "not path /x/y/*"},
		"outer in a block before":    {"$site {\nroute {\nroute {\n$outer}\nhandle /admin/* {\n$inner}\n}\n}", exclude},
		"in a snippet":               {"(admin) {\nhandle /admin/* {\n$inner}\n}\n$site {\n$outer import admin\n}", exclude},
		"both in a snippet":          {"(all) {\n$outer handle /admin/* {\n$inner}\n}\n$site {\nimport all\n}\n$other {\nrespond ok\n}", exclude},
		"both in handle_errors":      {"$site {\nhandle_errors {\n$outer handle /admin/* {\n$inner}\n}\n}", exclude},
		"in an answer of a proxy":    {"$site {\n$outer reverse_proxy {$APP} {\nhandle_response {\n$inner}\n}\n}", "not path /area/*"},
		"inner in a named route":     {"&(admin) {\n$inner}\n$site {\n$outer handle /admin/* {\ninvoke admin\n}\n}", exclude},
		"outer in a named route":     {"&(login) {\n$outer}\n$site {\ninvoke login\nhandle /admin/* {\n$inner}\n}", exclude},
		"both in a named route":      {"&(all) {\n$outer handle /admin/* {\n$inner}\n}\n$site {\ninvoke all\n}", exclude},
		"in two named routes":        {"&(login) {\n$outer}\n&(admin) {\n$inner}\n$site {\nroute {\ninvoke login\ninvoke admin\n}\n}", "not path /area/*"},
		"in a block of invokes":      {"&(login) {\n$outer}\n&(admin) {\n$inner}\n$site {\ninvoke login\nhandle_path /admin/* {\ninvoke admin\n}\n}\n$other {\n$again}", exclude},
		"in three levels":            {"$site {\n$outer handle /x/* {\n$again handle /x/y/* {\n$inner}\n}\n}", "not path /x/y/*"},
		"in the second of two sites": {"$other {\n$inner}\n$site {\n$outer handle /admin/* {\n$inner}\n}", exclude},
		"another cookie alone":       {"$site {\n$outer handle /admin/* {\n" + strings.Replace(loginDirective("", "inner"), "client_id inner", "client_id outer", 1) + "}\n}", exclude},
		"outer is optional":          {"$site {\n" + loginDirective("", "outer", "optional") + "handle /admin/* {\n$inner}\n}", exclude},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.validate(replaceDirectives(tc.text))
			if err == nil {
				t.Fatal("got no error, want one")
			}
			for _, want := range []string{"nested", "cookie __Host-outer", "cookie __Host-inner", tc.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got error %q, want one with %q", err, want)
				}
			}
		})
	}
}

// A false error would be worse than none.
func TestLoginsSideBySideAreAccepted(t *testing.T) {
	w := newWorld(t)
	for name, text := range map[string]string{
		"the area is excluded":       "$site {\n@site not path /admin/*\n" + loginDirective("@site", "outer") + "handle_path /admin/* {\n$inner}\n}",
		"other matchers":             "$site {\n" + loginDirective("/a/*", "outer") + loginDirective("/b/*", "inner") + "}",
		"another method":             "$site {\n@read method GET\n" + loginDirective("@read", "outer") + "handle /admin/* {\n$inner}\n}",
		"two blocks":                 "$site {\nhandle /a/* {\n$outer}\nhandle /b/* {\n$inner}\n}",
		"the rest of the site":       "$site {\nhandle /admin/* {\n$inner}\nhandle {\n$outer}\n}",
		"two route blocks":           "$site {\nroute /a/* {\n$outer}\nroute /b/* {\n$inner}\n}",
		"one login":                  "$site {\n$outer handle /admin/* {\n$again}\n}",
		"error routes":               "$site {\n$outer respond ok\nhandle_errors {\n$inner}\n}",
		"two sites":                  "$site {\n$outer}\n$other {\n$inner}",
		"a named route of two sites": "&(in) {\n$inner}\n$site {\nhandle /a/* {\n$outer}\nhandle {\ninvoke in\n}\n}\n$other {\ninvoke in\n}",
		"a named route, not invoked": "&(all) {\n$inner}\n$site {\n$outer}",
		"inner with a matcher":       "$site {\n$outer handle {\n" + loginDirective("/admin/x/*", "inner") + "}\n}",
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.validate(replaceDirectives(text)); err != nil {
				t.Errorf("got error %v, want none", err)
			}
		})
	}
}

// Where only some requests need both sessions, or a rewrite may keep the directives apart,
// a warning names both.
func TestWarningOfNestedLogins(t *testing.T) {
	w := newWorld(t)
	const warning = "nested in another one"
	for name, tc := range map[string]struct {
		text string
		want string // "": no warning
	}{
		"the matcher of the block":       {"$site {\n" + loginDirective("/admin/*", "outer") + "handle_path /admin/* {\n$inner}\n}", "not path /admin/*"},
		"a wider matcher":                {"$site {\n" + loginDirective("/a*", "outer") + "handle /admin/* {\n$inner}\n}", "not path /admin/*"},
		"inner with a matcher":           {"$site {\n$outer handle {\n" + loginDirective("/admin/x/*", "inner") + "}\n}", "not path /admin/x/*"},
		"inner with optional":            {"$site {\n$outer handle /admin/* {\n" + loginDirective("", "inner", "optional /admin/public/*") + "}\n}", "not path /admin/*"},
		"two matchers one after another": {"$site {\n" + loginDirective("/a/*", "outer") + loginDirective("/a/b/*", "inner") + "}", "not path /a/b/*"},
		"a narrower matcher":             {"$site {\n" + loginDirective("/admin/x/*", "outer") + "handle /admin/* {\n$inner}\n}", ""},
		"other paths":                    {"$site {\n" + loginDirective("/a/*", "outer") + loginDirective("/b/*", "inner") + "}", ""},
		"the area is excluded":           {"$site {\n@site not path /admin/*\n" + loginDirective("@site", "outer") + "handle /admin/* {\n$inner}\n}", ""},
		"one login":                      {"$site {\n" + loginDirective("/admin/*", "outer") + "handle /admin/* {\n$again}\n}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			captured.reset()
			w.load(replaceDirectives(tc.text))
			lines := captured.lines(warning)
			switch {
			case tc.want == "" && len(lines) > 0:
				t.Errorf("got %q, want no warning", lines)
			case tc.want == "":
			case len(captured.lines(warning, "client_id outer", "client_id inner", tc.want)) != 1:
				t.Errorf("got %q, want one warning with %q", lines, tc.want)
			}
		})
	}
}

// In JSON, directives may be in different routes of a server.
func TestNestedLoginsInRoutesOfJSON(t *testing.T) {
	w := newWorld(t)
	handler := func(client string) string {
		return fmt.Sprintf(`{"handler":"oauth_session","issuer":%q,"client_id":%q,"store":{"store":"memory"},"path_prefix":"/%s/oauth2","cookie":{"name":"__Host-%s"}}`, w.as.URL, client, client, client)
	}
	outer, inner := handler("outer"), handler("inner")
	for name, tc := range map[string]struct {
		routes  string
		refused bool
	}{
		"two routes":           {`{"handle":[` + outer + `]},{"match":[{"path":["/admin/*"]}],"handle":[` + inner + `]}`, true},
		"first of a group":     {`{"group":"g","handle":[` + outer + `]},{"handle":[` + inner + `]}`, true},
		"one group":            {`{"group":"g","match":[{"path":["/a"]}],"handle":[` + outer + `]},{"group":"g","handle":[` + inner + `]}`, false},
		"rest of a group":      {`{"group":"g","match":[{"path":["/a"]}],"handle":[{"handler":"vars"}]},{"group":"g","handle":[` + outer + `]},{"match":[{"path":["/a"]}],"handle":[` + inner + `]}`, false},
		"terminal":             {`{"terminal":true,"handle":[` + outer + `]},{"handle":[` + inner + `]}`, false},
		"matcher of the route": {`{"match":[{"method":["POST"]}],"handle":[` + outer + `]},{"match":[{"path":["/admin/*"]}],"handle":[` + inner + `]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var c *caddy.Config
			text := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:` + w.port + `"],"routes":[` + tc.routes + `]}}}}}`
			if err := json.Unmarshal([]byte(text), &c); err != nil {
				t.Fatal(err)
			}
			err := caddy.Validate(c)
			if refused := err != nil && strings.Contains(err.Error(), "nested in another one"); refused != tc.refused || err != nil && !refused {
				t.Errorf("got error %v, want an error: %v", err, tc.refused)
			}
		})
	}
}
