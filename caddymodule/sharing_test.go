package caddymodule

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// twoDirectivesCaddyfile returns a Caddyfile with two directives for different paths: in
// two sites, or in one if the second address is empty.
func twoDirectivesCaddyfile(a, b, optionsA, optionsB string) string {
	directive := func(path, options string) string {
		return "oauth_session " + path + " {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\nstore memory\n" + options + "\n}\n"
	}
	if b == "" {
		return a + " {\n" + directive("/a/*", optionsA) + directive("/b/*", optionsB) + "reverse_proxy {$APP}\n}\n"
	}
	return a + " {\n" + directive("/a/*", optionsA) + "reverse_proxy {$APP}\n}\n" + b + " {\n" + directive("/b/*", optionsB) + "reverse_proxy {$APP}\n}\n"
}

// Two directives of one login share the callback of one path_prefix. One of them would
// refuse the answers that the other has asked for.
func TestOneCallbackHasOneResponseMode(t *testing.T) {
	w := newWorld(t)
	const one, other = "http://one.localhost:{$PORT}", "http://two.localhost:{$PORT}"
	for _, tc := range []struct {
		name, a, b, optionsA, optionsB string
		refused                        bool
	}{
		{"two values", one, "", "response_mode form_post", "", true},
		{"two values, turned round", one, "", "response_mode query", "response_mode form_post", true},
		{"same base_url", one, other, "response_mode form_post\nbase_url https://app.test", "response_mode query\nbase_url https://app.test", true},
		{"default written out", one, "", "response_mode query", "", false},
		{"form_post twice", one, "", "response_mode form_post", "response_mode form_post", false},
		{"another path_prefix", one, "", "response_mode form_post", "path_prefix /b/oauth2", false},
		{"another host", one, other, "response_mode form_post", "", false},
		{"another port", one, "http://one.localhost:9", "response_mode form_post", "", false},
		{"a host beside a wildcard", one, "http://*.localhost:{$PORT}", "response_mode form_post", "", false},
		{"the same wildcard", "http://*.localhost:{$PORT}", "", "response_mode form_post", "", true},
		{"every host", "http://:{$PORT}", "", "response_mode form_post", "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := w.validate(twoDirectivesCaddyfile(tc.a, tc.b, tc.optionsA, tc.optionsB))
			if (err != nil) != tc.refused || err != nil && (!strings.Contains(err.Error(), "response_mode: ") || !strings.Contains(err.Error(), "another path_prefix")) {
				t.Errorf("got error %v, want one that names response_mode and the remedy: %v", err, tc.refused)
			}
		})
	}
}

// A token must reach only the apps for which it was requested. So directives that share
// sessions must request the same scopes, audiences and parameters.
func TestSharedSessionsRequireEqualTokenRequests(t *testing.T) {
	w := newWorld(t)
	const one, other = "http://one.localhost:{$PORT}", "http://two.localhost:{$PORT}"
	for _, tc := range []struct {
		name, a, b, optionsA, optionsB string
		want                           string // the option in the error; "": no error
	}{
		{"audience", one, "", "audience A", "audience B", "audience"},
		{"one audience", one, "", "audience A", "", "audience"},
		{"one audience, second", one, "", "", "audience B", "audience"},
		{"resource", one, "", "resource https://a.test", "resource https://b.test", "resource"},
		{"one more resource", one, "", "resource https://a.test", "resource https://a.test https://b.test", "resource"},
		{"scope", one, "", "scope openid a", "scope openid b", "scope"},
		{"more scopes", one, "", "scope openid", "scope openid admin", "scope"},
		{"scope beside the default", one, "", "", "scope openid admin", "scope"},
		{"token_param", one, "", "token_param audience A", "token_param audience B", "token_param audience"},
		{"refresh_param", one, "", "refresh_param scope a", "", "refresh_param scope"},
		{"authorize_param", one, "", "authorize_param authorization_details x", "", "authorize_param authorization_details"},
		{"cookie name written out", one, "", "audience A", "audience B\ncookie {\nname __Host-oauth_session\n}", "audience"},
		{"other path_prefix", one, "", "audience A", "audience B\npath_prefix /b/oauth2", "audience"},
		{"other require", one, "", "audience A", "audience B\nrequire groups admin", "audience"},
		{"same host, other port", one, "http://one.localhost:9", "audience A", "audience B", "audience"},
		{"same host, other case", one, "http://ONE.localhost:9", "audience A", "audience B", "audience"},
		{"wildcard", one, "http://*.localhost:{$PORT}", "audience A", "audience B", "audience"},
		{"catch-all", one, "http://:9", "audience A", "audience B", "audience"},
		{"a host both have", "http://x.localhost:{$PORT}, " + one, other + ", http://x.localhost:9", "audience A", "audience B", "audience"},
		{"cookie of a domain", "http://a.one.localhost:{$PORT}", "http://b.one.localhost:{$PORT}", "audience A\ncookie {\ndomain one.localhost\n}", "audience B\ncookie {\ndomain one.localhost\n}", "audience"},
		{"same base_url", one, other, "audience A\nbase_url https://app.test", "audience B\nbase_url https://app.test", "audience"},

		{"the same", one, "", "audience A\nscope openid a", "audience A\nscope openid a\nrequire groups admin", ""},
		{"order and repetition", one, "", "scope a openid b", "scope openid b a b", ""},
		{"default scope written out", one, "", "", "scope openid", ""},
		{"order of resources", one, "", "resource https://a.test https://b.test", "resource https://b.test https://a.test", ""},
		{"the sign-in page", one, "", "authorize_param prompt login", "authorize_param acr_values mfa", ""},
		{"other host", one, other, "audience A", "audience B", ""},
		{"other hosts below", "http://*.one.localhost:{$PORT}", "http://*.two.localhost:{$PORT}", "audience A", "audience B", ""},
		{"beside a wildcard", one, "http://*.one.localhost:{$PORT}", "audience A", "audience B", ""},
		{"other cookie", one, "", "audience A", "audience B\npath_prefix /b/oauth2\ncookie {\nname __Host-b\n}", ""},
		{"other client", one, "", "audience A", "audience B\nclient_id b\npath_prefix /b/oauth2\ncookie {\nname __Host-b\n}", ""},
		{"domains that do not meet", "http://a.one.localhost:{$PORT}", "http://b.two.localhost:{$PORT}", "audience A\ncookie {\ndomain one.localhost\n}", "audience B\ncookie {\ndomain two.localhost\n}", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := twoDirectivesCaddyfile(tc.a, tc.b, tc.optionsA, tc.optionsB)
			if i := strings.Index(tc.optionsB, "client_id b"); i >= 0 {
				text = strings.Replace(text, "client_id app\nclient_secret {env.SECRET}\nstore memory\naudience B\nclient_id b", "client_id b\nclient_secret {env.SECRET}\nstore memory\naudience B", 1)
			}
			err := w.validate(text)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case tc.want != "" && err == nil:
				t.Error("got no error")
			case tc.want != "":
				_, text, _ := strings.Cut(err.Error(), "provision http.handlers.oauth_session: ")
				if !strings.HasPrefix(text, tc.want+":") || !strings.Contains(text, "cookie { name") {
					t.Errorf("got error %q, want one that begins with %s and names the remedy", text, tc.want)
				}
			}
			if n := poolSize(); n != 0 {
				t.Errorf("got %d entries in the pool, want none", n)
			}
		})
	}
}

// The hosts of a handler depend on all matchers around it, in the Caddyfile and in JSON.
func TestHostsComeFromAllEnclosingMatchers(t *testing.T) {
	w := newWorld(t)
	inner := func(name, host, audience string) string {
		return "@" + name + " host " + host + "\nhandle @" + name + " {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nstore memory\naudience " + audience + "\n}\nreverse_proxy {$APP}\n}\n"
	}
	sites := func(a, b string) string {
		return "http://*.localhost:{$PORT} {\n" + inner("a", a, "A") + inner("b", b, "B") + "}\n"
	}
	if err := w.validate(sites("a.localhost", "b.localhost")); err != nil {
		t.Errorf("other hosts: got error %v, want none", err)
	}
	for _, host := range []string{"a.localhost", "*.localhost", "{http.request.header.X-Host}"} {
		if err := w.validate(sites("a.localhost", host)); err == nil || !strings.Contains(err.Error(), "audience") {
			t.Errorf("a.localhost and %s: got error %v, want one for audience", host, err)
		}
	}
	route := func(match, audience string) string {
		return `{` + match + `"handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"oauth_session","issuer":"https://login.example.com","client_id":"app","store":{"store":"memory"},"audience":"` + audience + `"}]}]}]}`
	}
	for name, tc := range map[string]struct {
		routes string
		ok     bool
	}{
		"two hosts":          {route(`"match":[{"host":["a.test"]}],`, "A") + "," + route(`"match":[{"host":["b.test"]}],`, "B"), true},
		"one without":        {route(`"match":[{"host":["a.test"]}],`, "A") + "," + route(``, "B"), false},
		"sets with a host":   {route(`"match":[{"host":["a.test"]},{"host":["c.test"]}],`, "A") + "," + route(`"match":[{"host":["b.test"]}],`, "B"), true},
		"a set without":      {route(`"match":[{"host":["a.test"]},{"path":["/x"]}],`, "A") + "," + route(`"match":[{"host":["b.test"]}],`, "B"), false},
		"a negated host":     {route(`"match":[{"host":["a.test"]}],`, "A") + "," + route(`"match":[{"not":[{"host":["a.test"]}]}],`, "B"), false},
		"an international":   {route(`"match":[{"host":["bücher.test"]}],`, "A") + "," + route(`"match":[{"host":["xn--bcher-kva.test"]}],`, "B"), false},
		"an app's own route": {route(`"match":[{"host":["a.test"]}],`, "A") + `,{"match":[{"host":["a.test"]}],"handle":[{"handler":"headers"},` + route(``, "B")[len(`{"handle":[`):], false},
	} {
		err := validateRoutes(t, tc.routes)
		if tc.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "audience") {
			t.Errorf("%s: got error %v, want success %v", name, err, tc.ok)
		}
	}
}

// A second directive for admins, with the same client, shares the session.
func TestAdminAreaSharesSession(t *testing.T) {
	w := newWorld(t)
	w.load("http://localhost:{$PORT} {\n@admin path /admin/*\n@rest not path /admin/*\noauth_session @admin {\n" + loginOptions +
		"\nrequire sub nobody\n}\noauth_session @rest {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n")
	b := newBrowser(t, w.origin)
	b.login("/")
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("got status %d, want 200", a.status)
	}
	if a := b.open("/admin/x"); a.status != http.StatusForbidden {
		t.Errorf("admin area: got status %d, want 403", a.status)
	}
}

// A site with a wildcard certificate may have hundreds of tenants. The search for hosts
// must not read the whole route again for each handler.
func TestHostSearchScalesWithHandlers(t *testing.T) {
	w := newWorld(t)
	allocated := func(tenants int) uint64 {
		var text strings.Builder
		text.WriteString("http://*.localhost:{$PORT} {\n")
		for i := range tenants {
			fmt.Fprintf(&text, "@h%d host h%d.localhost\nhandle @h%d {\noauth_session {\n%s\naudience A%d\n}\n}\n", i, i, i, loginOptions, i%2)
		}
		text.WriteString("}\n")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := w.validate(text.String()); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	const tenants = 60
	allocated(1)
	once, twice := allocated(tenants), allocated(2*tenants)
	t.Logf("%d tenants %d KB, %d tenants %d KB", tenants, once>>10, 2*tenants, twice>>10)
	if twice > 3*once {
		t.Errorf("got %.1f times the memory for twice the tenants, want at most 3", float64(twice)/float64(once))
	}
}
