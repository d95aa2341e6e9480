package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// askSessions sends a request to the endpoint and returns its status and body.
func askSessions(method, query string) (status int, body string) {
	w := httptest.NewRecorder()
	serveAsAdmin(w, httptest.NewRequest(method, "/oauth_session/sessions?"+query, nil))
	return w.Code, w.Body.String()
}

// serveAsAdmin answers errors as Caddy's admin endpoint does.
func serveAsAdmin(w http.ResponseWriter, r *http.Request) {
	err := serveSessions(w, r)
	var apiErr caddy.APIError
	if errors.As(err, &apiErr) {
		if apiErr.Err != nil {
			apiErr.Message = apiErr.Err.Error()
		}
		w.WriteHeader(apiErr.HTTPStatus)
		_ = json.NewEncoder(w).Encode(apiErr)
	}
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("got error %v in %q, want JSON", err, text)
	}
	return v
}

// listSessions reads the whole list in pages.
func listSessions(t *testing.T, query string, limit int) (all []shownSession) {
	t.Helper()
	cursor := ""
	for {
		status, body := askSessions(http.MethodGet, fmt.Sprintf("%s&limit=%d%s", query, limit, cursor))
		if status != http.StatusOK {
			t.Fatalf("got status %d: %s", status, body)
		}
		page := decode[sessionPage](t, body)
		if len(page.Sessions) > limit {
			t.Errorf("got %d sessions, want %d at most", len(page.Sessions), limit)
		}
		if all = append(all, page.Sessions...); page.Next == "" {
			return all
		}
		cursor = "&cursor=" + page.Next
	}
}

// loginUser logs a user in, with a browser of that name.
func (w *world) loginUser(site, user string) *browser {
	w.t.Helper()
	b := newBrowser(w.t, site)
	b.header.Set("User-Agent", "browser of "+user)
	b.visit("/oauth2/login?" + url.Values{"login_hint": {user}, "return_to": {"/"}}.Encode())
	if a := b.open("/"); a.status != http.StatusOK {
		w.t.Fatalf("login of %s: got status %d, %s", user, a.status, a.body)
	}
	return b
}

// loadTwoStores loads two sites with a store each.
func (w *world) loadTwoStores() (first, second string) {
	w.t.Helper()
	port := freePort(w.t)
	w.t.Setenv("SECOND", port)
	second = "http://localhost:" + port
	w.register("second", second)
	w.load(site("", "") + "http://localhost:{$SECOND} {\noauth_session {\nissuer {$ISSUER}\nclient_id second\nclient_secret {env.SECRET}\nstore bolt\nbase_url " + second + "\npath_prefix /oauth2\n}\nreverse_proxy {$APP}\n}\n")
	return w.origin, second
}

// TestOperatorListsAndEndsSessions over two stores, and no answer or log has a secret.
func TestOperatorListsAndEndsSessions(t *testing.T) {
	w := newWorld(t)
	first, second := w.loadTwoStores()
	var browsers []*browser
	for _, user := range []string{"alice", "bob", "alice"} {
		browsers = append(browsers, w.loginUser(first, user), w.loginUser(second, user))
	}
	var cookies []string
	for _, b := range browsers {
		for _, value := range b.cookies {
			cookies = append(cookies, value)
		}
	}
	for _, limit := range []int{1, 2, 4, 1000} {
		all := listSessions(t, "", limit)
		ids := map[string]bool{}
		for _, s := range all {
			ids[s.ID] = true
			if s.Site != "localhost" || s.UserAgent != "browser of "+s.User || s.ClientID != "app" && s.ClientID != "second" || s.CreatedAt == nil || s.LastUsedAt == nil || s.Label != "" {
				t.Errorf("got %+v, want site, user, client, browser and times", s)
			}
		}
		if len(all) != 6 || len(ids) != 6 {
			t.Errorf("pages of %d: got %d sessions, want each of 6 once", limit, len(all))
		}
		if n := len(listSessions(t, "user=alice", limit)); n != 4 {
			t.Errorf("pages of %d: got %d sessions of the user, want 4", limit, n)
		}
	}
	_, counted := askSessions(http.MethodGet, "count")
	if c := decode[sessionCount](t, counted); c.Count != 6 || c.Sites["localhost"] != 6 {
		t.Errorf("count: got %s, want 6", counted)
	}
	_, counted = askSessions(http.MethodGet, "count&user=bob")
	if c := decode[sessionCount](t, counted); c.Count != 2 {
		t.Errorf("count of a user: got %s, want 2", counted)
	}
	_, text := askSessions(http.MethodGet, "")
	w.wantNoSecrets("list of sessions", text+counted, cookies...)

	end := func(query string, want int, gone ...int) {
		t.Helper()
		status, body := askSessions(http.MethodDelete, query)
		if status != http.StatusOK || decode[revocation](t, body).Ended != want {
			t.Errorf("DELETE %s: got %d %s, want %d ended", query, status, body, want)
		}
		for _, i := range gone {
			if a := browsers[i].fetch("/"); a.status != http.StatusUnauthorized {
				t.Errorf("after DELETE %s: got status %d of browser %d, want 401", query, a.status, i)
			}
		}
	}
	id := listSessions(t, "user=bob", 10)[0].ID
	end("id="+id, 1)
	if status, body := askSessions(http.MethodDelete, "id="+id); status != http.StatusNotFound {
		t.Errorf("the same ID again: got %d %s, want 404", status, body)
	}
	end("user=carol", 0)
	end("older_than=30d", 0)
	end("user=alice", 4, 0, 1, 4, 5)
	end("older_than=0s", 1, 2, 3)
	if all := listSessions(t, "", 10); len(all) != 0 {
		t.Errorf("after all have ended: got %d sessions, want none", len(all))
	}
	if lines := captured.lines("session ended", `"reason":"revoked"`); len(lines) != 6 {
		t.Errorf("got %d log lines of revoked sessions, want 6", len(lines))
	}
	w.wantNoSecrets("log", captured.String(), cookies...)
	if a := browsers[0].open("/"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "session_revoked") {
		t.Errorf("navigation after the revocation: got status %d, %.300s, want the page with the reason", a.status, a.body)
	}
}

// TestSiteSelectsSessions of sites in one store, by the label that the log uses.
func TestSiteSelectsSessions(t *testing.T) {
	w := newWorld(t)
	w.as.AddClient(fakeas.Client{ID: "other", Secret: testSecret, RedirectURIs: []string{w.origin + "/other/oauth2/callback"}})
	other := strings.Replace(loginOptions, "client_id app", "client_id other", 1) + "\npath_prefix /other/oauth2\ncookie {\nname __Host-other\n}"
	w.load("http://localhost:{$PORT} {\nhandle /other/* {\noauth_session {\n" + other + "\n}\nreverse_proxy {$APP}\n}\nhandle {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n}\n")
	w.loginUser(w.origin, "alice")
	w.loginUser(w.origin, "alice")
	b := newBrowser(t, w.origin)
	b.login("/other/page")
	for label, want := range map[string]int{"localhost": 2, "localhost/other/oauth2": 1} {
		got := listSessions(t, "site="+url.QueryEscape(label), 10)
		if len(got) != want || got[0].Site != label {
			t.Errorf("site %s: got %+v, want %d sessions", label, got, want)
		}
		if _, text := askSessions(http.MethodGet, "count&site="+url.QueryEscape(label)); decode[sessionCount](t, text).Count != want {
			t.Errorf("count of site %s: got %s, want %d", label, text, want)
		}
	}
	if n := len(listSessions(t, "", 2)); n != 3 {
		t.Errorf("all sites: got %d sessions, want 3", n)
	}
	status, body := askSessions(http.MethodDelete, "older_than=0s&site=elsewhere.example.com")
	if status != http.StatusNotFound || !strings.Contains(body, "localhost/other") {
		t.Errorf("unknown site: got %d %s, want 404 with the names of the sites", status, body)
	}
	if status, body := askSessions(http.MethodDelete, "older_than=0s&site=localhost"); status != http.StatusOK || decode[revocation](t, body).Ended != 2 {
		t.Errorf("one site: got %d %s, want 2 ended", status, body)
	}
	if a := b.fetch("/other/page"); a.status != http.StatusOK {
		t.Errorf("other site: got status %d, want 200", a.status)
	}
}

// TestUnclearRevocationIsRefused: a mistake in a script must not end other sessions than
// intended.
func TestUnclearRevocationIsRefused(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	w.loginUser(w.origin, "alice")
	id := listSessions(t, "", 10)[0].ID
	for _, query := range []string{
		"", "site=localhost", "user=", "id=", "older_than=", "user=alice&user=bob", "user=alice&older_than=0s", "id=" + id + "&user=alice",
		"older-than=0s", "older_than=-1h", "older_than=soon", "older_than=5", "id=" + id[:12], "id=" + id + "00", "id=x" + id[1:], "all", "all=true", "usr=alice", "count", "limit=1&user=alice", "user=%zz",
	} {
		if status, body := askSessions(http.MethodDelete, query); status != http.StatusBadRequest || !strings.Contains(body, "error") {
			t.Errorf("DELETE %q: got %d %s, want 400 with a reason", query, status, body)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=" + id, "id=" + id, "older_than=0s", "count=no", "user="} {
		if status, body := askSessions(http.MethodGet, query); status != http.StatusBadRequest {
			t.Errorf("GET %q: got %d %s, want 400", query, status, body)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
		if status, _ := askSessions(method, "user=alice"); status != http.StatusMethodNotAllowed {
			t.Errorf("%s: got status %d, want 405", method, status)
		}
	}
	if n := len(listSessions(t, "", 10)); n != 1 {
		t.Errorf("after all of these: got %d sessions, want 1", n)
	}
}

// TestStoreThatIsDownIsNamed: the list is not empty, it is not known.
func TestStoreThatIsDownIsNamed(t *testing.T) {
	w := newWorld(t)
	w.load(strings.Replace(site("", ""), "store memory", "store redis redis://127.0.0.1:1\nkey "+keyA.Encode(), 1))
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		query := map[string]string{http.MethodGet: "", http.MethodDelete: "older_than=0s"}[method]
		if status, body := askSessions(method, query); status != http.StatusServiceUnavailable || !strings.Contains(body, "127.0.0.1:1") {
			t.Errorf("%s: got %d %s, want 503 with the store", method, status, body)
		}
	}
}

// TestReloadKeepsSitesOfTheRunningConfiguration in the registry, and no others.
func TestReloadKeepsSitesOfTheRunningConfiguration(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	w.loginUser(w.origin, "alice")
	for range 3 {
		w.load(site("idle_timeout 1h", ""))
		if n := len(servedSites.all); n != 1 {
			t.Errorf("after a reload: got %d handlers, want 1", n)
		}
		if all := listSessions(t, "", 10); len(all) != 1 || all[0].User != "alice" {
			t.Errorf("after a reload: got %+v, want the session", all)
		}
	}
	if err := w.validate(site("", "")); err != nil {
		t.Fatal(err)
	}
	if err := w.tryLoad(site("key {env.MISSING_KEY}", "")); err == nil {
		t.Error("configuration without a key: got no error")
	}
	if n := len(servedSites.all); n != 1 {
		t.Errorf("after a validation and a configuration that failed: got %d handlers, want 1", n)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(servedSites.all); n != 0 {
		t.Errorf("after the stop: got %d handlers, want none", n)
	}
	if status, body := askSessions(http.MethodGet, ""); status != http.StatusOK || len(decode[sessionPage](t, body).Sessions) != 0 {
		t.Errorf("without a site: got %d %s, want an empty list", status, body)
	}
}

// TestSessionBeyondTheLimitEnds with the option.
func TestSessionBeyondTheLimitEnds(t *testing.T) {
	w := newWorld(t)
	w.load(site("session_limit 1", ""))
	first := w.loginUser(w.origin, "alice")
	time.Sleep(2 * time.Millisecond)
	second := w.loginUser(w.origin, "alice")
	if a := first.fetch("/"); a.status != http.StatusUnauthorized {
		t.Errorf("first browser: got status %d, want 401", a.status)
	}
	if a := first.open("/"); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "session_limit") {
		t.Errorf("first browser: got status %d, %.300s, want the page with the reason", a.status, a.body)
	}
	if a := second.fetch("/"); a.status != http.StatusOK {
		t.Errorf("second browser: got status %d, want 200", a.status)
	}
	captured.wait(t, "session ended", `"reason":"session_limit"`)
}
