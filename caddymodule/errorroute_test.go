package caddymodule

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// Error pages may come from another upstream, which must not get the token.
func TestErrorRoutesGetNoToken(t *testing.T) {
	w := newWorld(t)
	pages := echo.Start(t, echo.Options{})
	t.Setenv("PAGES", pages.Addr())
	t.Setenv("NOBODY", "127.0.0.1:"+freePort(t))
	w.load(site("", "reverse_proxy /broken {$NOBODY}\nhandle_errors {\nreverse_proxy {$PAGES}\n}"))
	b := newBrowser(t, w.origin)
	if b.login("/").echo(t).Bearer() == "" {
		t.Fatal("got no token at the app")
	}
	b.header.Set("Authorization", "Bearer of-the-client")
	b.open("/broken")
	requests := pages.Requests()
	if len(requests) != 1 {
		t.Fatalf("got %d requests for error pages, want 1", len(requests))
	}
	if got := requests[0].Bearer(); got != "of-the-client" {
		t.Errorf("got token %q at the error page, want the client's", got)
	}
}

// handle_errors replaces the HTML pages. Scripts still get application/problem+json.
func TestErrorRoutesReplacePagesButNotJSON(t *testing.T) {
	const theme = "handle_errors {\nrespond \"themed {err.status_code}\"\n}"

	t.Run("no session", func(t *testing.T) {
		w := newWorld(t)
		w.load(site("", theme))
		a := newBrowser(t, w.origin).fetch("/")
		if a.status != http.StatusUnauthorized || a.header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.body, `"login_url":"/oauth2/login"`) {
			t.Errorf("script: got status %d, %s, want 401 and JSON with a login_url:\n%s", a.status, a.header.Get("Content-Type"), a.body)
		}
	})
	t.Run("no authorization server", func(t *testing.T) {
		w := newWorld(t)
		t.Setenv("ISSUER", "http://127.0.0.1:"+freePort(t))
		w.load(site("", theme))
		if a := newBrowser(t, w.origin).open("/"); a.status != http.StatusServiceUnavailable || a.body != "themed 503" {
			t.Errorf("got status %d, %s; want 503 and the themed page", a.status, a.body)
		}
	})
	t.Run("missing claim", func(t *testing.T) {
		w := newWorld(t)
		w.load(site("require groups admins", theme))
		b := newBrowser(t, w.origin)
		a := b.visit("/")
		if a.status != http.StatusForbidden || a.body != "themed 403" {
			t.Errorf("got status %d, %s; want 403 and the themed page", a.status, a.body)
		}
		for _, name := range []string{"Cache-Control", "X-Frame-Options", "X-Content-Type-Options"} {
			if a.header.Get(name) == "" {
				t.Errorf("themed page: got no header %s", name)
			}
		}
		if a := b.fetch("/"); a.status != http.StatusForbidden || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("script: got status %d, %s; want 403 and JSON", a.status, a.body)
		}
		if requests := w.app.Requests(); len(requests) > 0 {
			t.Errorf("got %d requests at the app, want none", len(requests))
		}
	})
}

// Public error pages often show {err.message}. The cause of an error, with addresses and
// text of other servers, appears only in the log.
func TestErrorMessageHidesCause(t *testing.T) {
	w := newWorld(t)
	t.Setenv("ISSUER", "http://127.0.0.1:"+freePort(t))
	w.load(site("", "handle_errors {\nrespond \"{err.message}\"\n}"))
	a := newBrowser(t, w.origin).open("/")
	if a.status != http.StatusServiceUnavailable || a.body == "" {
		t.Fatalf("got status %d, %q; want 503 and a message", a.status, a.body)
	}
	if strings.Contains(a.body, "127.0.0.1") || strings.Contains(a.body, "metadata") {
		t.Errorf("got the cause in {err.message}: %s", a.body)
	}
	captured.wait(t, `"level":"error"`, `"logger":"http.handlers.oauth_session"`, "127.0.0.1")
}

// An error route of another site, or for other errors, must not leave the page empty.
func TestErrorPageIsNotEmptyBesideErrorRoutes(t *testing.T) {
	const other = "\nhttp://other.localhost:{$PORT} {\nhandle_errors {\nrespond \"themed\"\n}\n}\n"
	for name, tc := range map[string]struct {
		errors, sites string // error routes of this site, and other sites
		themed        bool
	}{
		"another site":                     {"", other, false},
		"a site for all hosts":             {"", "\nhttp://:{$PORT} {\nhandle_errors {\nrespond \"themed\"\n}\n}\n", true},
		"another status":                   {"handle_errors 404 {\nrespond \"themed\"\n}", "", false},
		"several other statuses":           {"handle_errors 404 5xx 403 {\n@f expression {err.status_code} == 404\nrespond @f \"themed\"\n}", other, false},
		"another path":                     {"handle_errors {\nhandle /api/* {\nrespond \"themed\"\n}\n}", "", false},
		"another host within":              {"handle_errors {\n@o host other.localhost\nrespond @o \"themed\"\n}", "", false},
		"only a header":                    {"handle_errors {\nheader X-Error 1\n}", "", false},
		"only a rewrite":                   {"handle_errors {\nrewrite * /{err.status_code}.html\n}", "", false},
		"this status":                      {"handle_errors 503 {\nrespond \"themed\"\n}", other, true},
		"this status, by an expression":    {"handle_errors {\n@f expression {err.status_code} == 503\nheader X-Error 1\nrespond @f \"themed\"\n}", other, true},
		"this path":                        {"handle_errors {\nhandle /page* {\nrespond \"themed\"\n}\n}", "", true},
		"a path after a rewrite":           {"handle_errors {\nrewrite * /{err.status_code}.html\nrespond /503.html \"themed\"\n}", "", true},
		"the path before the site's own":   {"rewrite /page /other\nhandle_errors {\nrespond /page \"themed\"\n}", "", true},
		"the second of exclusive handlers": {"handle_errors {\nhandle /api/* {\nrespond \"api\"\n}\nhandle {\nrespond \"themed\"\n}\n}", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			t.Setenv("ISSUER", "http://127.0.0.1:"+freePort(t))
			w.load(site("", tc.errors) + tc.sites)
			a := newBrowser(t, w.origin).open("/page")
			switch {
			case a.status != http.StatusServiceUnavailable:
				t.Errorf("got status %d, want 503", a.status)
			case tc.themed && a.body != "themed":
				t.Errorf("got page %q, want that of handle_errors", a.body)
			case !tc.themed && !strings.Contains(a.body, "Sign-in is not available"):
				t.Errorf("got page %q, want the module's own", a.body)
			}
		})
	}
}

// A directive among the error routes has no other place for its own errors.
func TestErrorWithinErrorRoutesHasAPage(t *testing.T) {
	w := newWorld(t)
	t.Setenv("ISSUER", "http://127.0.0.1:"+freePort(t))
	w.load("http://localhost:{$PORT} {\nerror * 404\nhandle_errors {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n}\n")
	if a := newBrowser(t, w.origin).open("/page"); !strings.Contains(a.body, "Sign-in is not available") {
		t.Errorf("got status %d and page %q, want the module's own", a.status, a.body)
	}
}
