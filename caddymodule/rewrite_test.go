package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// Wherever paths are changed, above us or below, the login works, lands on the
// page that the browser asked for, and the app sees what the directives say.
func TestLoginWorksWithRewrittenPaths(t *testing.T) {
	for _, tc := range []struct {
		name, site string
		prefix     string // of the endpoints; default /oauth2
		wantLine   string
		wantSeen   string // header X-Seen
	}{
		{
			name:     "rewrite above",
			site:     "rewrite * /index.html?from={path}\noauth_session {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /index.html?from=%2Fapp%2Fpage HTTP/1.1", wantSeen: "/index.html?from=%2Fapp%2Fpage",
		},
		{
			name:     "try_files above",
			site:     "root * {$WWW}\ntry_files {path} /index.html\noauth_session {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /index.html?q=1 HTTP/1.1", wantSeen: "/index.html?q=1",
		},
		{
			name:     "rewrite below",
			site:     "route {\noauth_session {\n" + loginOptions + "\n}\nrewrite * /v2{uri}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}\n}",
			wantLine: "GET /v2/app/page?q=1 HTTP/1.1", wantSeen: "/v2/app/page?q=1",
		},
		{
			name:     "handle_path below",
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
			name:     "a matcher that the endpoints do not meet",
			site:     "oauth_session /app/* {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /app/page?q=1 HTTP/1.1", wantSeen: "/app/page?q=1",
		},
		{
			name:     "a matcher and a rewrite above",
			site:     "@app path /index.html\nrewrite * /index.html\noauth_session @app {\n" + loginOptions + "\n}\nrequest_header X-Seen {uri}\nreverse_proxy {$APP}",
			wantLine: "GET /index.html?q=1 HTTP/1.1", wantSeen: "/index.html?q=1",
		},
		{
			name:     "a header written below us",
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
				t.Errorf("landed on %s, want %s", a.url, page)
			}
			r := a.echo(t)
			if r.Line != tc.wantLine {
				t.Errorf("the app got %q, want %q", r.Line, tc.wantLine)
			}
			if got := strings.Join(r.Values("X-Seen"), "|"); got != tc.wantSeen {
				t.Errorf("X-Seen is %q, want %q", got, tc.wantSeen)
			}
			if r.Bearer() == "" {
				t.Error("no token reached the app")
			}
		})
	}
}

// A path outside of the matcher is none of our business.
func TestUnmatchedRequestsCarryNoToken(t *testing.T) {
	w := newWorld(t)
	w.load("http://localhost:{$PORT} {\noauth_session /private/* {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}")
	b := newBrowser(t, w.origin)
	if r := b.open("/public").echo(t); r.Bearer() != "" {
		t.Error("a stranger's request carries a token")
	}
	b.login("/private/x")
	if r := b.open("/public").echo(t); r.Bearer() != "" {
		t.Error("a request outside of the matcher carries a token")
	}
}
