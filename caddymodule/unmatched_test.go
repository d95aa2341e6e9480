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

// lastRequest returns the last request that reached the app.
func (w *world) lastRequest() echo.Request {
	w.t.Helper()
	all := w.app.Requests()
	if len(all) == 0 {
		w.t.Fatal("got no request at the app")
	}
	return all[len(all)-1]
}

// A request outside the matcher reaches the app without session and login cookies, and
// its response cannot set them. All other headers are as the client sent them.
func TestUnmatchedRequestsCarryNoSessionCookie(t *testing.T) {
	for name, line := range map[string]string{
		"a path":          "oauth_session /admin/* {",
		"a named matcher": "@private path /admin/*\noauth_session @private {",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load("http://localhost:{$PORT} {\n" + line + "\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n")
			b := newBrowser(t, w.origin)
			b.login("/admin/")
			b.open("/oauth2/login") // leaves a pending login
			if len(b.cookies) < 2 {
				t.Fatalf("got %d cookies in the browser, want a session cookie and a login cookie", len(b.cookies))
			}
			b.cookies["app"] = "1"
			b.header.Set("Authorization", "Basic dTpw")
			b.fetch("/style.css")
			r := w.lastRequest()
			if got := r.Values("Cookie"); !slices.Equal(got, []string{"app=1"}) {
				t.Errorf("got cookies %.60q at the app, want app=1", got)
			}
			if got := r.Values("Authorization"); !slices.Equal(got, []string{"Basic dTpw"}) {
				t.Errorf("got Authorization %q at the app, want the client's", got)
			}
			a := b.fetch("/u/setcookie?name=__Host-oauth_session")
			for _, line := range a.header.Values("Set-Cookie") {
				if strings.HasPrefix(line, "__Host-oauth_session=") {
					t.Errorf("got Set-Cookie %q, want no session cookie", line)
				}
			}
			if len(a.header.Values("Set-Cookie")) == 0 {
				t.Error("got no Set-Cookie, want those of the app")
			}
		})
	}
}

// A path that another server might resolve to a protected path is protected, too.
// Matchers that do not depend on the path are not affected.
func TestAmbiguousPathsAreProtected(t *testing.T) {
	for name, tc := range map[string]struct {
		site         string
		closed, open []string // paths with and without protection
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
				if got := w.statusOf("GET " + target + " HTTP/1.1\r\nHost: localhost:" + w.port + "\r\nConnection: close\r\n\r\n"); got != status {
					t.Errorf("%s: got status %d, want %d", target, got, status)
				}
				if reached := len(w.app.Requests()) > before; reached != (status == http.StatusOK) {
					t.Errorf("%s: got request at the app %v, want %v", target, reached, !reached)
				}
			}
		})
	}
}

// statusOf sends a request byte for byte and returns the status of the response.
func (w *world) statusOf(request string) int {
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

// A matcher sees the changes of directives that run earlier, and none of later ones.
func TestMatcherSeesRequestAtDirectivePosition(t *testing.T) {
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
					t.Errorf("%s without a session: got status %d, want %d", path, a.status, want)
				}
			}
			if b.login(tc.private).echo(t).Bearer() == "" {
				t.Errorf("%s: got no token at the app", tc.private)
			}
			if b.open(tc.public).echo(t).Bearer() != "" {
				t.Errorf("%s: got a token at the app, want none", tc.public)
			}
		})
	}
}

func TestFailingMatcherProtectsRequest(t *testing.T) {
	w := newWorld(t)
	w.load("http://localhost:{$PORT} {\n@m expression `{http.request.header.X-Level} / 0 == 1`\noauth_session @m {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}")
	b := newBrowser(t, w.origin)
	if a := b.fetch("/"); a.status != http.StatusUnauthorized || len(w.app.Requests()) > 0 {
		t.Errorf("got status %d and %d requests at the app, want 401 and none", a.status, len(w.app.Requests()))
	}
}

// With several directives in one site, each serves the requests of its matcher, in any
// order, with its own client and cookie.
func TestDirectivesOfOneSiteKeepSeparateSessions(t *testing.T) {
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
			t.Errorf("%s without a session: got status %d, want 401", part, a.status)
		}
		r := b.login("/" + part + "/x").echo(t)
		if r.Bearer() == "" || r.Values("Cookie") != nil {
			t.Errorf("%s: got token %q and cookies %.60q at the app, want a token and no cookies", part, r.Bearer(), r.Values("Cookie"))
		}
		tokens[r.Bearer()] = true
		if r := b.open("/c").echo(t); r.Bearer() != "" || r.Values("Cookie") != nil {
			t.Errorf("outside both matchers, after a login at %s: got %v at the app, want no token and no cookies", part, r)
		}
	}
	if len(tokens) != 2 {
		t.Errorf("got %d tokens, want one of each client", len(tokens))
	}
}

// Routes in handle_response get the request as the app got it, with the token. The
// operator removes the token with request_header.
func TestHandleResponseRouteCanRemoveToken(t *testing.T) {
	w := newWorld(t)
	pages := echo.Start(t, echo.Options{})
	t.Setenv("PAGES", pages.Addr())
	w.load("http://localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP} {\n@any status 2xx\nhandle_response @any {\nrequest_header -Authorization\nreverse_proxy {$PAGES}\n}\n}\n}\n")
	newBrowser(t, w.origin).login("/x")
	seen := pages.Requests()
	if len(seen) != 1 || w.lastRequest().Bearer() == "" {
		t.Fatalf("got %d requests at the other upstream and token %q at the app, want 1 and a token", len(seen), w.lastRequest().Bearer())
	}
	if seen[0].Bearer() != "" || seen[0].Values("Cookie") != nil {
		t.Errorf("got token %q and cookies %.60q at the other upstream, want none", seen[0].Bearer(), seen[0].Values("Cookie"))
	}
}
