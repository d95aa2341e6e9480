package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// With path rewrites before or after the directive, the login works and returns to the
// requested page, and the app sees the rewritten request.
func TestLoginWorksWithRewrittenPaths(t *testing.T) {
	for _, tc := range []struct {
		name, site string
		prefix     string // of the endpoints; default /oauth2
		wantLine   string
		wantSeen   string // in the header X-Seen
	}{
		{
			name:     "rewrite before",
			site:     "rewrite * /index.html?from={path}\noauth_session {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /index.html?from=%2Fapp%2Fpage HTTP/1.1", wantSeen: "/index.html?from=%2Fapp%2Fpage",
		},
		{
			name:     "try_files before",
			site:     "root * {$WWW}\ntry_files {path} /index.html\noauth_session {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /index.html?q=1 HTTP/1.1", wantSeen: "/index.html?q=1",
		},
		{
			name:     "rewrite after",
			site:     "route {\noauth_session {\n" + loginOptions + "\n}\nrewrite * /v2{uri}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}\n}",
			wantLine: "GET /v2/app/page?q=1 HTTP/1.1", wantSeen: "/v2/app/page?q=1",
		},
		{
			name:     "handle_path after",
			site:     "oauth_session {\n" + loginOptions + "\n}\nhandle_path /app/* {\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}\n}",
			wantLine: "GET /page?q=1 HTTP/1.1", wantSeen: "/page?q=1",
		},
		{
			name:     "inside handle_path",
			site:     "handle_path /app/* {\noauth_session {\n" + loginOptions + "\npath_prefix /app/oauth2\n}\nrequest_header X-Seen {http.request.orig_uri}\nreverse_proxy {$APP}\n}",
			prefix:   "/app/oauth2",
			wantLine: "GET /page?q=1 HTTP/1.1", wantSeen: "/app/page?q=1",
		},
		{
			name:     "a matcher without the endpoints",
			site:     "oauth_session /app/* {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /app/page?q=1 HTTP/1.1", wantSeen: "/app/page?q=1",
		},
		{
			name:     "a matcher and a rewrite before",
			site:     "@app path /index.html\nrewrite * /index.html\noauth_session @app {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /index.html?q=1 HTTP/1.1", wantSeen: "/index.html?q=1",
		},
		{
			name:     "a header set after",
			site:     "oauth_session {\n" + loginOptions + "\n}\nrequest_header X-Seen {http.auth.user.id}\nreverse_proxy {$APP}",
			wantLine: "GET /app/page?q=1 HTTP/1.1", wantSeen: "alice",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			t.Setenv("WWW", w.data)
			if err := os.MkdirAll(w.data, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(w.data, "index.html"), []byte("index"), 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.prefix != "" {
				w.as.AddClient(fakeas.Client{ID: "app", Secret: testSecret, RedirectURIs: []string{w.origin + tc.prefix + "/callback"}})
			}
			w.load("http://localhost:{$PORT} {\n" + tc.site + "\n}")
			b := newBrowser(t, w.origin)
			const page = "/app/page?q=1"
			a := b.login(page)
			if a.url != w.origin+page {
				t.Errorf("got page %s after the login, want %s", a.url, page)
			}
			r := a.echo(t)
			if r.Line != tc.wantLine {
				t.Errorf("got request %q at the app, want %q", r.Line, tc.wantLine)
			}
			if got := strings.Join(r.Values("X-Seen"), "|"); got != tc.wantSeen {
				t.Errorf("got X-Seen %q, want %q", got, tc.wantSeen)
			}
			if r.Bearer() == "" {
				t.Error("got no token at the app")
			}
		})
	}
}

func TestUnmatchedRequestsCarryNoToken(t *testing.T) {
	w := newWorld(t)
	w.load("http://localhost:{$PORT} {\noauth_session /private/* {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}")
	b := newBrowser(t, w.origin)
	if r := b.open("/public").echo(t); r.Bearer() != "" {
		t.Error("without a session: got a token at the app")
	}
	b.login("/private/x")
	if r := b.open("/public").echo(t); r.Bearer() != "" {
		t.Error("with a session: got a token at the app")
	}
}
