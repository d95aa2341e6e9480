package caddymodule

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// last is the last request that reached the app.
func (w *world) last() echo.Request {
	w.t.Helper()
	all := w.app.Requests()
	if len(all) == 0 {
		w.t.Fatal("nothing reached the app")
	}
	return all[len(all)-1]
}

// What a matcher leaves open gets neither the session's cookie nor a login's,
// and sets none. All else is as the client sent it.
func TestCookiesBesideTheMatcher(t *testing.T) {
	for name, line := range map[string]string{
		"a path":          "oauth_session /admin/* {",
		"a named matcher": "@private path /admin/*\noauth_session @private {",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("http://localhost:{$PORT} {\n" + line + "\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n")
			b := newBrowser(t, w.origin)
			b.login("/admin/")
			b.open("/oauth2/login") // leaves a login under way
			if len(b.cookies) < 2 {
				t.Fatalf("the browser has %d cookies, want a session's and a login's", len(b.cookies))
			}
			b.cookies["app"] = "1"
			b.header.Set("Authorization", "Basic dTpw")
			b.fetch("/style.css")
			r := w.last()
			if got := r.Values("Cookie"); !slices.Equal(got, []string{"app=1"}) {
				t.Errorf("the app got the cookies %.60q", got)
			}
			if got := r.Values("Authorization"); !slices.Equal(got, []string{"Basic dTpw"}) {
				t.Errorf("the app got Authorization %q", got)
			}
			a := b.fetch("/u/setcookie?name=__Host-oauth_session")
			for _, line := range a.header.Values("Set-Cookie") {
				if strings.HasPrefix(line, "__Host-oauth_session=") {
					t.Errorf("the app sets %q", line)
				}
			}
			if len(a.header.Values("Set-Cookie")) == 0 {
				t.Error("the app sets no cookie at all")
			}
		})
	}
}

// A path that the app may read as one that the matcher protects is protected.
// Matchers that look at no path decide as ever.
func TestAmbiguousPathsBesideTheMatcher(t *testing.T) {
	for name, tc := range map[string]struct {
		site         string
		closed, open []string
	}{
		"all but a path": {
			"@m not path /public/*\noauth_session @m {",
			[]string{"/public/..;/admin", "/public/..%5cadmin", "/public/%252e%252e/admin", "/admin", "/public;/x", "/public/x;v=1", "//public/x", "/public/./x"},
			[]string{"/public/a..b", "/public/", "/public/x?a=;"},
		},
		"a path": {
			"oauth_session /private/* {",
			[]string{"/private;/x", "/;/private/x", "/%5cprivate/x", "/private%252fx", "/%2570rivate/x", "/private%00/x", "/PRIVATE/x", "//private/x", "http:private/x", "/index.php/private/x"},
			[]string{"/", "/x", "/private-beta/x", "/100%25"},
		},
		"an expression": {
			"@m expression `{path}.startsWith(\"/private/\")`\noauth_session @m {",
			[]string{"//private/x", "/private//x", "/x/..;/private/x"}, []string{"/x"},
		},
		"the original path": {
			"@m vars_regexp {http.request.orig_uri.path} ^/private/\nrewrite * /index.php\noauth_session @m {",
			[]string{"/private/x", "/private;/x", "//private/x"}, []string{"/x"},
		},
		"a path and this host": {
			"@m {\nhost localhost\npath /private/*\n}\noauth_session @m {",
			[]string{"/private/x", "/private;/x"}, []string{"/x"},
		},
		"a path and another host": {
			"@m {\nhost other.test\npath /private/*\n}\noauth_session @m {",
			nil, []string{"/private/x", "/private;/x", "/x/../y"},
		},
		"another method": {"@m method POST\noauth_session @m {", nil, []string{"/x", "/x;y"}},
		"not this method": {
			"@m not method GET\noauth_session @m {", nil, []string{"/x", "/x;y"},
		},
		"a host by a placeholder": {
			"@m host {query.host}\noauth_session @m {", []string{"/x?host=localhost", "/x;y"}, []string{"/x"},
		},
		"another method, or a path": {
			"@m expression `method('POST') || path('/private/*')`\noauth_session @m {", []string{"/private/x", "/x;y"}, []string{"/x"},
		},
		"optional for all":    {"oauth_session {\noptional", nil, []string{"/x", "/x;y", "/x/../y"}},
		"optional for a path": {"oauth_session {\noptional /public/*", []string{"/x", "/public;x/y", "/public/..;/x"}, []string{"/public/x"}},
		"optional for a host": {"@m host localhost\noauth_session {\noptional @m", nil, []string{"/x", "/public;x/y"}},
		"optional for a path of a host": {
			"@m {\nhost localhost\npath /public/*\n}\noauth_session {\noptional @m", []string{"/x", "/public;x/y"}, []string{"/public/x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("http://localhost:{$PORT} {\n" + tc.site + "\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n")
			want := map[string]int{}
			for _, target := range tc.closed {
				want[target] = http.StatusUnauthorized
			}
			for _, target := range tc.open {
				want[target] = http.StatusOK
			}
			for target, status := range want {
				before := len(w.app.Requests())
				if got := w.status("GET " + target + " HTTP/1.1\r\nHost: localhost:" + w.port + "\r\nConnection: close\r\n\r\n"); got != status {
					t.Errorf("%s: status %d, want %d", target, got, status)
				}
				if asked := len(w.app.Requests()) > before; asked != (status == http.StatusOK) {
					t.Errorf("%s: the app was asked: %v", target, asked)
				}
			}
		})
	}
}

// status is that of the answer to a request written byte for byte.
func (w *world) status(request string) int {
	w.t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+w.port)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, request); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// A matcher sees the request where the directive stands: after what runs before
// it, and before what runs after it.
func TestMatcherSeesWhatRunsBefore(t *testing.T) {
	for name, tc := range map[string]struct {
		site, private, also, public string
	}{
		"a rewritten path":  {"@m path /in/*\nrewrite /old/* /in{uri}\noauth_session @m {", "/old/x", "/in/x", "/x"},
		"not yet rewritten": {"handle_path /in/* {\nreverse_proxy {$APP}\n}\noauth_session /in/* {", "/in/x", "/in/y", "/x"},
		"a variable":        {"vars /old/* area in\n@m vars {vars.area} in\noauth_session @m {", "/old/x", "/old/y", "/in/x"},
		"the original path": {"@m vars_regexp {http.request.orig_uri.path} ^/old/\nrewrite * /new{uri}\noauth_session @m {", "/old/x", "/old/y", "/new/old/x"},
		"an expression":     {"@m expression `{path}.startsWith(\"/in/\") && {method} == \"GET\"`\nrewrite /old/* /in{uri}\noauth_session @m {", "/old/x", "/in/x", "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("http://localhost:{$PORT} {\n" + tc.site + "\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}")
			b := newBrowser(t, w.origin)
			for path, want := range map[string]int{tc.private: 401, tc.also: 401, tc.public: 200} {
				if a := b.fetch(path); a.status != want {
					t.Errorf("%s: status %d for nobody, want %d", path, a.status, want)
				}
			}
			if b.login(tc.private).echo(t).Bearer() == "" {
				t.Errorf("%s: no token", tc.private)
			}
			if b.open(tc.public).echo(t).Bearer() != "" {
				t.Errorf("%s: a token", tc.public)
			}
		})
	}
}

// A matcher that fails leaves nothing open.
func TestMatcherFails(t *testing.T) {
	w := newWorld(t)
	w.load("http://localhost:{$PORT} {\n@m expression `{http.request.header.X-Level} / 0 == 1`\noauth_session @m {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}")
	b := newBrowser(t, w.origin)
	if a := b.fetch("/"); a.status != http.StatusUnauthorized || len(w.app.Requests()) > 0 {
		t.Errorf("status %d, the app got %d requests", a.status, len(w.app.Requests()))
	}
}

// Several directives of one site each serve the requests of their matchers,
// whatever the order, with clients and cookies of their own.
func TestSeveralDirectives(t *testing.T) {
	w := newWorld(t)
	site := "http://localhost:{$PORT} {\n"
	for _, part := range []string{"a", "b"} {
		w.as.AddClient(fakeas.Client{ID: part, Secret: testSecret, RedirectURIs: []string{w.origin + "/" + part + "/oauth2/callback"}})
		site += "oauth_session /" + part + "/* {\n" + strings.Replace(loginOptions, "client_id app", "client_id "+part, 1) +
			"\npath_prefix /" + part + "/oauth2\n" + "cookie {\nname __Host-" + part + "\n}" + "\n}\n"
	}
	w.load(site + "reverse_proxy {$APP}\n}")
	tokens := map[string]bool{}
	for _, part := range []string{"a", "b"} {
		b := newBrowser(t, w.origin)
		if a := b.fetch("/" + part + "/x"); a.status != http.StatusUnauthorized {
			t.Errorf("%s: status %d for nobody", part, a.status)
		}
		r := b.login("/" + part + "/x").echo(t)
		if r.Bearer() == "" || r.Values("Cookie") != nil {
			t.Errorf("%s: the app got the token %q and the cookies %.60q", part, r.Bearer(), r.Values("Cookie"))
		}
		tokens[r.Bearer()] = true
		if r := b.open("/c").echo(t); r.Bearer() != "" || r.Values("Cookie") != nil {
			t.Errorf("beside both, after a login at %s, the app got %v", part, r)
		}
	}
	if len(tokens) != 2 {
		t.Errorf("%d tokens, want one of each client", len(tokens))
	}
}

// Routes in handle_response get the request that went to the app: what keeps
// the token from another upstream there is a line of the operator's.
func TestHandleResponse(t *testing.T) {
	w := newWorld(t)
	pages := echo.Start(t, echo.Options{})
	t.Setenv("PAGES", pages.Addr())
	w.load("http://localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP} {\n@any status 2xx\nhandle_response @any {\nrequest_header -Authorization\nreverse_proxy {$PAGES}\n}\n}\n}\n")
	newBrowser(t, w.origin).login("/x")
	seen := pages.Requests()
	if len(seen) != 1 || w.last().Bearer() == "" {
		t.Fatalf("%d requests reached the other upstream, the app got the token %q", len(seen), w.last().Bearer())
	}
	if seen[0].Bearer() != "" || seen[0].Values("Cookie") != nil {
		t.Errorf("the other upstream got the token %q and the cookies %.60q", seen[0].Bearer(), seen[0].Values("Cookie"))
	}
}
