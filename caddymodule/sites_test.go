package caddymodule

import (
	"net/http"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// Sites with different clients or authorization servers do not accept each other's
// sessions, even with the same key, store and cookie name.
func TestSitesDoNotShareSessions(t *testing.T) {
	w := newWorld(t)
	other := fakeas.Start(t, fakeas.Options{})
	other.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
	t.Setenv("OTHER", other.URL)
	a, b, c, d := "http://a.localhost:"+w.port, "http://b.localhost:"+w.port, "http://c.localhost:"+w.port, "http://d.localhost:"+w.port
	w.register("client-a", a, d)
	w.register("client-b", b)
	other.AddClient(fakeas.Client{ID: "client-a", Secret: testSecret, RedirectURIs: []string{c + "/oauth2/callback"}})
	block := func(name, issuer, client string) string {
		return "http://" + name + ".localhost:{$PORT} {\noauth_session {\nissuer " + issuer + "\nclient_id " + client + "\nclient_secret {env.SECRET}\nstore memory\n}\nreverse_proxy {$APP}\n}\n"
	}
	w.load(block("a", "{$ISSUER}", "client-a") + block("b", "{$ISSUER}", "client-b") + block("c", "{$OTHER}", "client-a") + block("d", "{$ISSUER}", "client-a"))

	first := newBrowser(t, a)
	first.login("/")
	pending := newBrowser(t, a)
	callback := pending.startLogin("/")
	for origin, difference := range map[string]string{b: "another client", c: "another authorization server"} {
		thief := newBrowser(t, origin)
		thief.cookies = first.cookies
		if got := thief.open("/"); got.status != http.StatusFound {
			t.Errorf("%s: got status %d with the session, want a login", difference, got.status)
		}
		// A login that began at one site cannot complete at another.
		thief = newBrowser(t, origin)
		thief.cookies = pending.cookies
		if thief.open(origin + callback[len(a):]); thief.cookies["__Host-oauth_session"] != "" {
			t.Errorf("%s: got a session from a login of the first site", difference)
		}
	}
	// Two hosts with the same client at the same server are one site.
	twin := newBrowser(t, d)
	twin.cookies = first.cookies
	if got := twin.open("/"); got.status != http.StatusOK {
		t.Errorf("same client: got status %d, want 200", got.status)
	}
}

// The cookie name separates sites of the same client: a cookie is not valid under
// another name.
func TestCookieNameSeparatesSites(t *testing.T) {
	w := newWorld(t)
	a, b := "http://a.localhost:"+w.port, "http://b.localhost:"+w.port
	w.register("app", a, b)
	block := func(name string) string {
		return "http://" + name + ".localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\ncookie {\nname __Host-" + name + "\n}\n}\nreverse_proxy {$APP}\n}\n"
	}
	w.load(block("a") + block("b"))
	first := newBrowser(t, a)
	first.login("/")
	other := newBrowser(t, b)
	other.cookies = map[string]string{"__Host-b": first.cookies["__Host-a"]}
	if got := other.open("/"); got.status != http.StatusFound {
		t.Errorf("got status %d, want a login", got.status)
	}
	other.login("/")
}
