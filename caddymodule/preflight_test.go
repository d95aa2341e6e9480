package caddymodule

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestSiteIntroducesItself: one line has all that an operator registers at the
// authorization server.
func TestSiteIntroducesItself(t *testing.T) {
	for name, tc := range map[string]struct {
		caddyfile string
		want      []string
	}{
		"host of the site": {site("", ""), []string{
			`"redirect_uris":["http://localhost:{$PORT}/oauth2/callback"]`,
			`"post_logout_redirect_uris":["http://localhost:{$PORT}/oauth2/logout/callback"]`,
			`"backchannel_logout_uris":["http://localhost:{$PORT}/oauth2/backchannel_logout"]`,
			`"client_id":"app"`, `"issuer":"{$ISSUER}"`, `"store":"memory"`, `"key_ids":["`, `"site":"localhost"`,
		}},
		"base_url": {site("base_url https://app.example.com\nfrontchannel_logout\npath_prefix /login", ""), []string{
			`"redirect_uris":["https://app.example.com/login/callback"]`,
			`"frontchannel_logout_uris":["https://app.example.com/login/frontchannel_logout"]`,
		}},
		"several hosts": {"http://a.localhost:{$PORT}, http://*.localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\n}\n", []string{
			`"http://a.localhost:{$PORT}/oauth2/callback"`, `"http://*.localhost:{$PORT}/oauth2/callback"`,
		}},
		"unknown host": {"http://:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\n}\n", []string{`"https://<host>/oauth2/callback"`}},
		"behind a proxy": {"http://app.example.com:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\n}\n", []string{
			`"https://app.example.com/oauth2/callback"`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(tc.caddyfile)
			line := captured.wait(t, `"level":"info"`, `"redirect_uris"`)
			for _, want := range tc.want {
				if want = os.ExpandEnv(strings.NewReplacer("{$PORT}", w.port, "{$ISSUER}", w.as.URL).Replace(want)); !strings.Contains(line, want) {
					t.Errorf("got %s, want %s in it", line, want)
				}
			}
			if strings.Contains(captured.String(), testSecret) {
				t.Error("the log has the client secret")
			}
		})
	}
}

// TestServerIsCheckedBeforeTheFirstVisitor: one line says what is wrong with the
// authorization server of several sites, and one that it can be used again.
func TestServerIsCheckedBeforeTheFirstVisitor(t *testing.T) {
	w := newWorld(t)
	w.as.Set(func(k *fakeas.Knobs) { k.Discovery = fakeas.DiscoveryNone })
	w.load("http://a.localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\n}\nhttp://b.localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\n}\n")
	captured.wait(t, `"level":"warn"`, serverTexts.fails, `"finding":"metadata"`, `"option":"issuer"`, `"sites":["a.localhost","b.localhost"]`)
	w.as.Set(func(k *fakeas.Knobs) { k.Discovery = fakeas.DiscoveryBoth })
	captured.wait(t, `"level":"info"`, serverTexts.recovers, `"sites":["a.localhost","b.localhost"]`)
	if lines := captured.lines(serverTexts.fails); len(lines) != 1 {
		t.Errorf("got %d warnings, want one: %q", len(lines), lines)
	}
}

// TestDamagedFileIsMovedAside: the site with a damaged store, and all other sites, start.
// The former content is kept.
func TestDamagedFileIsMovedAside(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, damaged := filepath.Join(dir, "sessions.db"), bytes.Repeat([]byte("damaged "), 4096)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STORE", path)
	w.load("http://other.localhost:{$PORT} {\nrespond other\n}\n" + strings.Replace(site("", ""), "store memory", "store bolt {\npath {$STORE}\n}", 1))
	line := captured.wait(t, `"level":"error"`, "moved aside", path)
	var entry struct {
		MovedTo string `json:"moved_to"`
	}
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(entry.MovedTo); err != nil || !bytes.Equal(kept, damaged) {
		t.Errorf("got error %v and %d bytes of the damaged file, want all of it", err, len(kept))
	}
	b := newBrowser(t, w.origin)
	b.login("/")
	if lines := captured.lines("moved aside"); len(lines) != 1 {
		t.Errorf("got %d lines, want one", len(lines))
	}
}

// TestReadinessIsThatOfEachSite: a site is ready if its store can be written and its
// authorization server has been reached once.
func TestReadinessIsThatOfEachSite(t *testing.T) {
	w := newWorld(t)
	w.as.Set(func(k *fakeas.Knobs) { k.Discovery = fakeas.DiscoveryNone })
	other := fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{ID: "app", Secret: testSecret}}})
	t.Setenv("OTHER", other.URL)
	w.load("http://a.localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\n}\nhttp://b.localhost:{$PORT} {\noauth_session {\n" + strings.Replace(loginOptions, "{$ISSUER}", "{$OTHER}", 1) + "\n}\n}\n")
	want := []siteState{
		{Site: "a.localhost", Store: "memory", Issuer: w.as.URL},
		{Site: "b.localhost", Store: "memory", Issuer: other.URL, Ready: true},
	}
	status, sites := readySitesOf(t)
	if len(sites) == 2 {
		if !strings.Contains(sites[0].Error, "metadata") {
			t.Errorf("got error %q, want the metadata named", sites[0].Error)
		}
		sites[0].Error = ""
	}
	if diff := cmp.Diff(want, sites); diff != "" || status != http.StatusServiceUnavailable {
		t.Errorf("got status %d: %s", status, diff)
	}
	// A server that has been reached once may be down.
	other.Set(func(k *fakeas.Knobs) { k.Discovery = fakeas.DiscoveryNone })
	if _, sites := readySitesOf(t); len(sites) != 2 || !sites[1].Ready {
		t.Errorf("got %+v, want b.localhost still ready", sites)
	}
}

func readySitesOf(t *testing.T) (status int, sites []siteState) {
	t.Helper()
	rec := httptest.NewRecorder()
	if err := serveReady(rec, httptest.NewRequest(http.MethodGet, "/oauth_session/ready", nil)); err != nil {
		t.Fatal(err)
	}
	var answer struct{ Sites []siteState }
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return rec.Code, answer.Sites
}
