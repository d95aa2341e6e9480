package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// serviceWorkers are the scripts of the app's service worker. All take control of open pages at once.
var serviceWorkers = map[string]string{
	"passes-on": claimClients + `
addEventListener("fetch", event => event.respondWith(fetch(event.request)))`,

	// Stale while revalidate, with the two rules of docs/requests.md.
	"caches": claimClients + `
addEventListener("fetch", event => {
	const { pathname } = new URL(event.request.url)
	if (event.request.mode !== "navigate" || pathname.startsWith("/oauth2/")) return
	const fresh = fetch(event.request).then(async answer => {
		if (answer.ok) await (await caches.open("pages")).put(event.request, answer.clone())
		return answer
	})
	event.waitUntil(fresh)
	event.respondWith(caches.match(event.request).then(cached => cached ?? fresh))
})`,

	// Cache first, as in many examples: it stores each answer, also redirects, errors and those of the endpoints.
	"stores-all": claimClients + `
addEventListener("fetch", event => {
	if (event.request.method !== "GET") return
	event.respondWith(caches.match(event.request).then(async cached => {
		if (cached) return cached
		const fresh = await fetch(event.request)
		const pages = await caches.open("pages")
		event.waitUntil(pages.put(event.request, fresh.clone()).catch(() => {}))
		return fresh
	}))
})`,

	// One page for all paths but the endpoints (application shell).
	"shell": claimClients + `
addEventListener("install", event => event.waitUntil(caches.open("pages").then(pages => pages.add("/shell"))))
addEventListener("fetch", event => {
	const { pathname } = new URL(event.request.url)
	if (event.request.mode === "navigate" && !pathname.startsWith("/oauth2/")) event.respondWith(caches.match("/shell"))
})`,
}

const claimClients = `addEventListener("activate", event => event.waitUntil(clients.claim()))`

// TestServiceWorkerAndTheEndOfTheSession uses apps with a service worker. The session ends, and the user gets back to the page.
func TestServiceWorkerAndTheEndOfTheSession(t *testing.T) {
	t.Parallel()
	scenes := []userScene{
		{"the worker passes navigations on", plainSite, expireBehindAPassingWorker},
		{"the worker answers from its cache", plainSite, endBehindACachingWorker},
		{"the worker answers with one page for all", plainSite, endBehindAShell},
		{"the worker stores all answers", plainSite, endBehindACarelessWorker},
	}
	newUserScenes(t, scenes).run(t, scenes)
}

// TestDocsShowTheWayToTheLogin compares docs/requests.md with the code of the scenes.
func TestDocsShowTheWayToTheLogin(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/requests.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```js\n"+goToLogin+"\n```") {
		t.Errorf("docs/requests.md lacks this code:\n%s", goToLogin)
	}
}

// installWorker logs alice in and installs a service worker.
func (u *user) installWorker(t *testing.T, kind string) {
	t.Helper()
	u.logIn(t, "alice", "/start")
	browser.Eval[bool](t, u.tab, `(async () => {
		const controlled = new Promise(resolve => navigator.serviceWorker.addEventListener("controllerchange", resolve))
		await navigator.serviceWorker.register("/worker.js?`+kind+`")
		await controlled
		return true
	})()`)
}

// expireBehindAPassingWorker lets a session expire with its access token.
func expireBehindAPassingWorker(t *testing.T, u *user) {
	const wanted = "/wanted?x=1"
	before := u.as.Knobs()
	u.as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime, k.RefreshTokens = heldLife, fakeas.RefreshNone })
	u.installWorker(t, "passes-on")
	u.as.Set(func(k *fakeas.Knobs) { *k = before })
	u.as.signOutAll()
	eventually(t, "end of the session", func() bool {
		return browser.Eval[bool](t, u.tab, `fetch("/oauth2/session").then(answer => answer.json()).then(session => !session.authenticated)`)
	})
	u.wantLoginURL(t)
	u.wantSignInPage(t, u.open(t, wanted))
	doc := u.signIn(t, u.tab, "alice")
	u.wantPage(t, u.tab, doc, "alice", wanted)
	if dest := loggedHeader(t, u.caddy, wanted, "Sec-Fetch-Dest"); dest != "empty" {
		t.Errorf("got Sec-Fetch-Dest %q, want empty: the worker did not pass the navigation on", dest)
	}

	u.endSessions(t, "alice")
	u.wantSignInPage(t, u.open(t, "/other"))
	wantNotice(t, u.tab, u.tab.Click(t, "#access_denied"), "access_denied")
	u.wantOneClick(t, u.tab, "alice", "/other")
}

// endBehindACachingWorker: the user sees the stored page, and the app's next request leads to the login.
func endBehindACachingWorker(t *testing.T, u *user) {
	const stored, fresh = "/wanted?x=1", "/never/seen?y=2"
	u.installWorker(t, "caches")
	u.wantPage(t, u.tab, u.open(t, stored), "alice", stored)
	u.endSessions(t, "alice")
	u.wantPage(t, u.tab, u.open(t, stored), "alice", stored) // from the cache
	u.wantLoginURL(t)
	u.wantSignInPage(t, u.tab.Click(t, "#load"))
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", stored)
	u.wantAPI(t, "alice")

	u.endSessions(t, "alice")
	u.wantSignInPage(t, u.open(t, fresh)) // the cache does not have this page
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", fresh)
	u.wantAPI(t, "alice")
}

// endBehindAShell: every navigation gets the same page, and the app's next request leads to the login.
func endBehindAShell(t *testing.T, u *user) {
	const wanted = "/deep/page?x=1"
	u.installWorker(t, "shell")
	u.open(t, wanted)
	u.endSessions(t, "alice")
	u.wantLoginURL(t)
	u.wantSignInPage(t, u.tab.Click(t, "#load"))
	if doc := u.signIn(t, u.tab, "alice"); doc.URL != u.site+wanted {
		t.Errorf("got %+v, want the page %s", doc, wanted)
	}
	u.wantAPI(t, "alice")
}

// endBehindACarelessWorker: the worker stores the redirects to the login, and the refusals. It must not use them afterwards, or
// the user would go in a circle.
func endBehindACarelessWorker(t *testing.T, u *user) {
	const wanted = "/never/seen?y=2"
	u.installWorker(t, "stores-all")
	u.endSessions(t, "alice")
	u.wantLoginURL(t)
	u.wantSignInPage(t, u.open(t, wanted))
	wantNotice(t, u.tab, u.tab.Click(t, "#access_denied"), "access_denied")
	u.wantOneClick(t, u.tab, "alice", wanted)
	u.wantAPI(t, "alice")
}

// wantLoginURL fails the test unless the app's fetch gets 401 and the address of the login.
func (u *user) wantLoginURL(t *testing.T) {
	t.Helper()
	answer := u.tab.Fetch(t, "/api", browser.Request{})
	var problem struct {
		LoginURL string `json:"login_url"`
	}
	if answer.Status != http.StatusUnauthorized || json.Unmarshal([]byte(answer.Body), &problem) != nil || problem.LoginURL != "/oauth2/login" {
		t.Fatalf("fetch without a session: got %+v, want 401 with login_url", answer)
	}
}

// wantAPI fails the test unless the app's fetch is answered for the user.
func (u *user) wantAPI(t *testing.T, name string) {
	t.Helper()
	if answer := u.tab.Fetch(t, "/api", browser.Request{}); answer.Status != http.StatusOK || answer.Body != name {
		t.Fatalf("fetch with a session: got %+v, want the app's answer for %s", answer, name)
	}
}
