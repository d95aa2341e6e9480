package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const plainSite = "oauth_session {\n$login\n}\n$app"

// TestUserIsOneClickFromTheWantedPage plays what happens to users: expiry, refusals, errors, several tabs, several accounts.
// After each, the user sees the wanted page, or a page with one link that leads there. No browser follows more than ten
// redirects in a row.
func TestUserIsOneClickFromTheWantedPage(t *testing.T) {
	t.Parallel()
	scenes := []userScene{
		{"two apps on one host", "oauth_session /one/* {\n$login\ncookie {\nname __Host-one\n}\npath_prefix /one/oauth2\n}\n" +
			"oauth_session /two/* {\n$other\ncookie {\nname __Host-two\n}\npath_prefix /two/oauth2\n}\n$app", switchBetweenTwoApps},
		{"an area for administrators", plainSite + "\nhandle /admin/* {\noauth_session {\n$login\nrequire groups admins\n}\n$app\n}", enterTheAdminArea},
		{"ten tabs, errors in four", plainSite, failInSomeOfTenTabs},
		{"the server fails every login", plainSite, meetAFailingServer},
		{"back button after the login", plainSite, goBackAfterTheLogin},
		{"the session ends while a form is filled in", plainSite, submitAFormWithoutSession},
		{"the address of the callback again", plainSite, openTheCallbackAgain},
		{"a bookmark of the sign-in page, a day later", plainSite, openABookmarkOfTheSignInPage},
	}
	newUserScenes(t, scenes).run(t, scenes)
}

// switchBetweenTwoApps logs two accounts in at two apps, and switches between them.
func switchBetweenTwoApps(t *testing.T, u *user) {
	u.logIn(t, "alice", "/one/start?x=1")
	u.as.signOutAll()
	u.logIn(t, "bob", "/two/start?x=1")
	logins := u.logins()
	for i := range 10 {
		one, two := fmt.Sprintf("/one/%d", i), fmt.Sprintf("/two/%d", i)
		u.wantPage(t, u.tab, u.open(t, one), "alice", one)
		u.wantPage(t, u.tab, u.open(t, two), "bob", two)
	}
	if n := u.logins() - logins; n != 0 {
		t.Errorf("while switching: got %d logins, want none", n)
	}
}

// enterTheAdminArea lets an administrator in. Another user gets there with another account.
func enterTheAdminArea(t *testing.T, u *user) {
	const wanted = "/admin/users?page=2"
	u.logIn(t, "alice", wanted)
	u.endSessions(t, "alice")

	u.logIn(t, "bob", "/")
	doc := u.open(t, wanted)
	wantNotice(t, u.tab, doc, "forbidden")
	if doc.Status != http.StatusForbidden {
		t.Errorf("got status %d, want 403", doc.Status)
	}
	// The authorization server knows bob, and must ask nevertheless.
	u.wantSignInPage(t, u.tab.Click(t, wayOut))
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", wanted)
	u.wantPage(t, u.tab, u.open(t, "/"), "alice", "/")
}

// failInSomeOfTenTabs opens ten tabs at the same time. Two logins end with an error before the first that succeeds, and two
// after it.
func failInSomeOfTenTabs(t *testing.T, u *user) {
	const tabs = 10
	pages, wanted, addresses := []*browser.Page{u.tab}, make([]string, tabs), make([]string, tabs)
	for i := range tabs {
		if i > 0 {
			pages = append(pages, u.profile.NewPage(t))
		}
		wanted[i] = fmt.Sprintf("/tab/%d?n=%d", i, i)
		addresses[i] = u.site + wanted[i]
	}
	for _, doc := range browser.OpenAll(t, pages, addresses) {
		u.wantSignInPage(t, doc)
	}
	// The module keeps the cookies of five logins. Without its cookie, a refusal is one of a login that it does not know.
	denied := []string{"access_denied", "login_refused"}
	wantNotice(t, pages[3], pages[3].Click(t, "#access_denied"), denied...)
	var doc browser.Document
	for range 3 { // the module begins the login again, twice at most
		if doc = pages[4].Click(t, "#server_error"); !u.isSignInPage(doc) {
			break
		}
	}
	wantNotice(t, pages[4], doc, "login_failed", "login_refused")

	u.wantPage(t, pages[5], u.signIn(t, pages[5], "alice"), "alice", wanted[5])
	u.wantPage(t, pages[0], pages[0].Click(t, "#server_error"), "alice", wanted[0])
	wantNotice(t, pages[1], pages[1].Click(t, "#access_denied"), denied...)
	for _, i := range []int{2, 6, 7, 8, 9} {
		u.wantPage(t, pages[i], u.signIn(t, pages[i], "alice"), "alice", wanted[i])
	}
	for _, i := range []int{1, 3, 4} {
		u.wantOneClick(t, pages[i], "alice", wanted[i])
	}
}

// meetAFailingServer lets the authorization server answer every login with an error, without asking the user.
func meetAFailingServer(t *testing.T, u *user) {
	u.as.Fail(fakeas.OAuthError("server_error").At(fakeas.EndpointAuthorize).Repeat(-1))
	defer u.as.ClearFaults()
	u.wantSignInPage(t, u.open(t, "/wanted?x=1"))
	wantNotice(t, u.tab, u.signIn(t, u.tab, "alice"), "login_failed")
	// The click leads to the same page: the server still fails.
	wantNotice(t, u.tab, u.tab.Click(t, wayOut), "login_failed")
	u.as.ClearFaults()
	u.wantOneClick(t, u.tab, "alice", "/wanted?x=1")
}

// goBackAfterTheLogin goes back to the sign-in page, with and without a session at the authorization server.
func goBackAfterTheLogin(t *testing.T, u *user) {
	const wanted = "/wanted?x=1"
	u.logIn(t, "alice", wanted)
	// The server knows the browser, and sends it on.
	u.wantPage(t, u.tab, u.tab.Back(t), "alice", wanted)

	u.endSessions(t, "alice")
	u.logIn(t, "alice", "/second")
	u.as.signOutAll()
	u.wantSignInPage(t, u.tab.Back(t))
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", "/second")
}

// submitAFormWithoutSession submits a form of the app after the session has ended.
func submitAFormWithoutSession(t *testing.T, u *user) {
	const form = "/form?id=7"
	u.logIn(t, "alice", form)
	u.endSessions(t, "alice")
	doc := u.tab.Click(t, "#save")
	wantNotice(t, u.tab, doc, "login_required")
	if doc.Status != http.StatusUnauthorized {
		t.Errorf("got status %d, want 401", doc.Status)
	}
	u.wantOneClick(t, u.tab, "alice", form)
	u.wantPage(t, u.tab, u.tab.Click(t, "#save"), "alice", "/saved")
}

// openTheCallbackAgain opens the address of a callback again: of a refused login, by a reload, and of a completed one, with and
// without a session. Browsers do so when they restore their tabs.
func openTheCallbackAgain(t *testing.T, u *user) {
	const wanted = "/wanted?x=1"
	u.wantSignInPage(t, u.open(t, wanted))
	wantNotice(t, u.tab, u.tab.Click(t, "#access_denied"), "access_denied")
	wantNotice(t, u.tab, u.tab.Reload(t), "login_refused")
	u.wantSignInPage(t, u.tab.Click(t, wayOut))
	doc := u.signIn(t, u.tab, "alice")
	u.wantPage(t, u.tab, doc, "alice", wanted)

	completed := callbackIn(t, doc)
	u.wantPage(t, u.tab, u.tab.Open(t, completed), "alice", wanted)
	u.endSessions(t, "alice")
	u.wantSignInPage(t, u.tab.Open(t, completed))
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", wanted)
}

// openABookmarkOfTheSignInPage uses the address of the sign-in page while the session lasts, and after browser, session and
// login have been forgotten.
func openABookmarkOfTheSignInPage(t *testing.T, u *user) {
	const wanted = "/wanted?x=1"
	doc := u.open(t, wanted)
	u.wantSignInPage(t, doc)
	bookmark := doc.URL
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", wanted)
	u.wantPage(t, u.tab, u.tab.Open(t, bookmark), "alice", wanted)

	u.profile.DeleteCookies(t)
	u.wantSignInPage(t, u.tab.Open(t, bookmark))
	u.wantPage(t, u.tab, u.signIn(t, u.tab, "alice"), "alice", wanted)
}

// TestBrowserWithoutCookies blocks all cookies. The page says so, and leads on as soon as they are allowed.
func TestBrowserWithoutCookies(t *testing.T) {
	t.Parallel()
	const wanted = "/wanted?x=1"
	scenes := []userScene{{"all cookies blocked", plainSite, nil}}
	w := newUserScenes(t, scenes)
	u := &user{userScenes: w, site: w.sites[0], client: clientOf(0), profile: w.browser, tab: w.browser.NewPage(t)}
	w.browser.AllowCookies(t, false)
	u.wantSignInPage(t, u.open(t, wanted))
	u.wantSignInPage(t, u.signIn(t, u.tab, "alice")) // the module begins the login again, once
	wantNotice(t, u.tab, u.signIn(t, u.tab, "alice"), "cookies_blocked")
	if n := len(w.browser.Cookies(t)); n != 0 {
		t.Errorf("got %d cookies, want none", n)
	}
	// The click leads to the same page: the cookies are still blocked.
	u.wantSignInPage(t, u.tab.Click(t, wayOut))
	if doc := u.signIn(t, u.tab, "alice"); u.isSignInPage(doc) {
		wantNotice(t, u.tab, u.signIn(t, u.tab, "alice"), "cookies_blocked")
	} else {
		wantNotice(t, u.tab, doc, "cookies_blocked")
	}
	w.browser.AllowCookies(t, true)
	u.wantOneClick(t, u.tab, "alice", wanted)
	if c := w.browser.Cookie(t, sessionCookie); c == nil || strings.TrimSpace(c.Value) == "" {
		t.Errorf("got session cookie %+v, want one", c)
	}
}
