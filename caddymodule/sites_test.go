package caddymodule

import (
	"net/http"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// Sites that differ in client or authorization server have nothing in common,
// though they share key, store and cookie name.
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
	half := newBrowser(t, a)
	callback := half.startLogin("/")
	for origin, why := range map[string]string{b: "another client", c: "another authorization server"} {
		thief := newBrowser(t, origin)
		thief.cookies = first.cookies
		if got := thief.open("/"); got.status != http.StatusFound {
			t.Errorf("a site of %s accepts the session: status %d", why, got.status)
		}
		// A login that was begun at one site is not completed at another.
		thief = newBrowser(t, origin)
		thief.cookies = half.cookies
		if thief.open(origin + callback[len(a):]); thief.cookies["__Host-oauth_session"] != "" {
			t.Errorf("a site of %s completes the login", why)
		}
	}
	// The same client at the same server is the same site under two names.
	twin := newBrowser(t, d)
	twin.cookies = first.cookies
	if got := twin.open("/"); got.status != http.StatusOK {
		t.Errorf("a site of the same client: status %d, want 200", got.status)
	}
}

// Sites of the same client are told apart by the name of their cookie: what was
// set under one name opens nothing under another.
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
		t.Errorf("status %d, want a login", got.status)
	}
	other.login("/")
}
