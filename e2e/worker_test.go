package e2e

import (
	"net/http"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// registerWorker installs the site's service worker, and waits until it controls the page.
const registerWorker = `(async () => {
	const controlled = new Promise(resolve => navigator.serviceWorker.addEventListener("controllerchange", resolve))
	await navigator.serviceWorker.register("/sw.js")
	await controlled
	return true
})()`

// TestServiceWorkerPassesNavigationsOn uses an app with a worker that answers every request with fetch(event.request). Login,
// error page and reload work as without it.
func TestServiceWorkerPassesNavigationsOn(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	caddy := caddyserver.Start(t, caddyserver.Config{
		Env: secret(s),
		Sites: block(site, "handle /public {\nheader Content-Type text/html\nrespond \"<!doctype html><title>page</title><body>hello\"\n}\n"+
			"handle /sw.js {\nheader Content-Type text/javascript\nrespond `addEventListener('activate', e => e.waitUntil(clients.claim())); addEventListener('fetch', e => e.respondWith(fetch(e.request)))`\n}\n"+
			"handle {\n"+protect(s, "")+"reverse_proxy "+app.Addr()+"\n}"),
	})
	b, tab := browser.Start(t)
	tab.Open(t, site+"/public")
	browser.Eval[bool](t, tab, registerWorker)
	if doc := tab.Open(t, site+"/wanted?x=1"); doc.Status != http.StatusOK || doc.URL != site+"/wanted?x=1" {
		t.Fatalf("got %+v: %s, want the wanted page", doc, tab.Text(t))
	}
	if dest := loggedHeader(t, caddy, "/wanted?x=1", "Sec-Fetch-Dest"); dest != "empty" {
		t.Errorf("got Sec-Fetch-Dest %q, want empty: the worker did not pass the navigation on", dest)
	}
	if len(b.Cookies(t)) == 0 {
		t.Error("got no cookie, want a session")
	}
	if doc := tab.Open(t, site+"/oauth2/unknown"); doc.Status != http.StatusNotFound || tab.Text(t) == "" {
		t.Errorf("got %+v, want a page with status 404", doc)
	}
	if doc := tab.Click(t, "a"); doc.Status != http.StatusOK || doc.URL != site+"/" {
		t.Errorf("after the link: got %+v, want the start page", doc)
	}
}

// loggedHeader returns a header of the first request for a URI, from Caddy's access log.
func loggedHeader(t *testing.T, caddy *caddyserver.Server, uri, name string) (value string) {
	t.Helper()
	eventually(t, "access log entry for "+uri, func() bool {
		for _, entry := range caddy.Entries(t, "http.log.access") {
			request, ok := entry["request"].(map[string]any)
			if !ok || request["uri"] != uri {
				continue
			}
			header, _ := request["headers"].(map[string]any)
			if values, ok := header[name].([]any); ok && len(values) > 0 {
				value, _ = values[0].(string)
			}
			return true
		}
		return false
	})
	return value
}
