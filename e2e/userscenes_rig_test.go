package e2e

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	// maxRedirects is the most that a user's browser may go on by itself.
	maxRedirects = 10
	// wayOut selects the link of the module's pages.
	wayOut = "main a"
)

// A userScene is something that happens to a user with a real browser.
type userScene struct {
	name string
	// site has the directives. $login and $other are the options of two clients, $app is the app.
	site  string
	visit func(t *testing.T, u *user)
}

// userScenes has one Caddy with a site for each scene, and one browser with a profile for each.
type userScenes struct {
	as      *signInServer
	caddy   *caddyserver.Server
	browser *browser.Browser
	sites   []string
}

// newUserScenes starts the servers and the browser for the scenes.
func newUserScenes(t *testing.T, scenes []userScene) *userScenes {
	t.Helper()
	const clientSecret = "user-scenes-secret-canary"
	w := &userScenes{as: startSignInServer(t)}
	w.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"groups": []string{"users", "admins"}}})
	app := httptest.NewServer(http.HandlerFunc(w.serveApp))
	t.Cleanup(app.Close)
	var sites strings.Builder
	for i, scene := range scenes {
		site := newSite(t)
		w.sites = append(w.sites, site)
		login := func(client string) string {
			c := fakeas.Client{ID: client, Secret: clientSecret, BackchannelLogoutURI: site + "/oauth2/backchannel_logout"}
			for _, prefix := range []string{"/oauth2", "/one/oauth2", "/two/oauth2"} {
				c.RedirectURIs = append(c.RedirectURIs, site+prefix+"/callback")
			}
			w.as.AddClient(c)
			return fmt.Sprintf("issuer %s\nclient_id %s\nclient_secret {env.CLIENT_SECRET}\nrefresh_timeout 50s", w.as.URL, client)
		}
		replacer := strings.NewReplacer("$login", login(clientOf(i)), "$other", login(clientOf(i)+"-other"), "$app", "reverse_proxy "+app.Listener.Addr().String())
		sites.WriteString(block(site, replacer.Replace(scene.site)))
	}
	w.caddy = caddyserver.Start(t, caddyserver.Config{Env: []string{"CLIENT_SECRET=" + clientSecret}, Sites: sites.String()})
	w.browser, _ = browser.Start(t)
	return w
}

// clientOf returns the ID of the first client of a scene.
func clientOf(scene int) string { return fmt.Sprintf("scene-%d", scene) }

// run plays the scenes one after another: they share the authorization server.
func (w *userScenes) run(t *testing.T, scenes []userScene) {
	for i, scene := range scenes {
		t.Run(scene.name, func(t *testing.T) {
			w.as.signOutAll()
			u := &user{userScenes: w, site: w.sites[i], client: clientOf(i)}
			u.profile, u.tab = w.browser.NewProfile(t)
			scene.visit(t, u)
		})
	}
}

// appPage shows the user of the token and the path. Its button #load asks the API, and goes to the login at 401 as
// docs/requests.md tells apps to do.
const appPage = `<!doctype html><title>App</title><p id="who">%s at %s</p>
<form method="post" action="/saved"><input name="text" type="text"><button id="save">Save</button></form>
<button id="load">Load</button>
<script>
document.getElementById("load").onclick = async () => {
` + goToLogin + `
}
</script>
`

// goToLogin is the code of docs/requests.md.
const goToLogin = `const answer = await fetch("/api")
if (answer.status === 401) {
	const { login_url } = await answer.json()
	location.assign(login_url + "?return_to=" + encodeURIComponent(location.pathname + location.search))
}`

// serveApp is the app behind all sites.
func (w *userScenes) serveApp(out http.ResponseWriter, r *http.Request) {
	name, ok := w.as.ValidAccessToken(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if !ok {
		name = "nobody"
	}
	switch r.URL.Path {
	case "/worker.js":
		out.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(out, serviceWorkers[r.URL.RawQuery])
	case "/api":
		_, _ = io.WriteString(out, name)
	default:
		out.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(out, appPage, name, html.EscapeString(r.URL.RequestURI()))
	}
}

// A user is a browser profile at the site of a scene.
type user struct {
	*userScenes
	site    string
	client  string // of the site
	profile *browser.Browser
	tab     *browser.Page // the first one
}

// open opens a path of the site in the first tab.
func (u *user) open(t *testing.T, path string) browser.Document {
	t.Helper()
	return u.tab.Open(t, u.site+path)
}

// logIn opens a path in the first tab, and signs in. The user sees the wanted page.
func (u *user) logIn(t *testing.T, name, path string) {
	t.Helper()
	u.wantSignInPage(t, u.open(t, path))
	u.wantPage(t, u.tab, u.signIn(t, u.tab, name), name, path)
}

// signIn submits the form of the sign-in page.
func (u *user) signIn(t *testing.T, tab *browser.Page, name string) browser.Document {
	t.Helper()
	return tab.SubmitForm(t, name, "any")
}

// endSessions ends the sessions of a user at the site and at the authorization server, as an administrator does. It names each
// session: a logout of the user would also end a login within the same second.
func (u *user) endSessions(t *testing.T, name string) {
	t.Helper()
	for _, issued := range u.as.Tokens() {
		if issued.Kind != fakeas.KindID || issued.User != name || issued.ClientID != u.client {
			continue
		}
		token, err := u.as.LogoutToken(fakeas.Logout{ClientID: u.client, SessionID: issued.Family})
		if err != nil {
			t.Fatal(err)
		}
		if status, err := u.as.SendLogout(t.Context(), &http.Client{}, u.client, token); err != nil || status != http.StatusOK {
			t.Fatalf("ending a session of %s: got status %d and error %v, want 200", name, status, err)
		}
	}
	u.as.signOutAll()
}

// logins returns the number of authorization requests so far.
func (u *user) logins() int { return u.as.Stats().Requests[fakeas.EndpointAuthorize] }

// wantFewRedirects fails the test if the browser went on by itself more often than it may.
func wantFewRedirects(t *testing.T, doc browser.Document) {
	t.Helper()
	if len(doc.Via) > maxRedirects {
		t.Errorf("%s: got %d redirects in a row, want at most %d: %q", doc.URL, len(doc.Via), maxRedirects, doc.Via)
	}
}

// isSignInPage reports whether the browser shows the authorization server's page.
func (u *user) isSignInPage(doc browser.Document) bool {
	return strings.HasPrefix(doc.URL, u.as.URL+"/authorize?")
}

// wantSignInPage fails the test unless the browser shows the authorization server's page.
func (u *user) wantSignInPage(t *testing.T, doc browser.Document) {
	t.Helper()
	wantFewRedirects(t, doc)
	if !u.isSignInPage(doc) {
		t.Fatalf("got %+v, want the sign-in page", doc)
	}
}

// wantPage fails the test unless the tab shows the app's page at a path, for the user of that name.
func (u *user) wantPage(t *testing.T, tab *browser.Page, doc browser.Document, name, path string) {
	t.Helper()
	wantFewRedirects(t, doc)
	shown := browser.Eval[string](t, tab, `document.getElementById("who")?.textContent ?? document.documentElement.innerText`)
	if doc.URL != u.site+path || doc.Status != http.StatusOK || shown != name+" at "+path {
		t.Fatalf("got %+v with %q, want the app's page %s for %s", doc, shown, path, name)
	}
}

// wantNotice fails the test unless the tab shows a page of the module with one of the codes, and one link.
func wantNotice(t *testing.T, tab *browser.Page, doc browser.Document, codes ...string) {
	t.Helper()
	wantFewRedirects(t, doc)
	notice := browser.Eval[struct {
		Code  string `json:"code"`
		Links int    `json:"links"`
	}](t, tab, `({code: document.querySelector("main small")?.textContent ?? "", links: document.querySelectorAll("`+wayOut+`").length})`)
	for _, code := range codes {
		if notice.Code == code && notice.Links == 1 && doc.Status >= 400 {
			return
		}
	}
	t.Fatalf("got %+v with %+v, want a page with one of the codes %q and one link: %s", doc, notice, codes, tab.Text(t))
}

// wantOneClick clicks the link of a page of the module. Apart from signing in, that click must lead to the wanted page.
func (u *user) wantOneClick(t *testing.T, tab *browser.Page, name, path string) {
	t.Helper()
	doc := tab.Click(t, wayOut)
	if u.isSignInPage(doc) {
		wantFewRedirects(t, doc)
		doc = u.signIn(t, tab, name)
	}
	u.wantPage(t, tab, doc, name, path)
}

// callbackIn returns the URL of the callback among those that led to a document.
func callbackIn(t *testing.T, doc browser.Document) string {
	t.Helper()
	for _, via := range doc.Via {
		if u, err := url.Parse(via); err == nil && strings.HasSuffix(u.Path, "/oauth2/callback") {
			return via
		}
	}
	t.Fatalf("got %+v, want a document that a callback led to", doc)
	return ""
}
