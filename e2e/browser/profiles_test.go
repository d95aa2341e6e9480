package browser_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
)

// startCookieSite starts a site that sets a cookie and shows the cookies of each request for a page. /from redirects twice to /to.
func startCookieSite(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if next := map[string]string{"/from": "/over", "/over": "/to"}[r.URL.Path]; next != "" {
			http.Redirect(w, r, next, http.StatusFound)
			return
		}
		if r.URL.Path == "/favicon.ico" { // at any time, also after the cookies were deleted
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		http.SetCookie(w, &http.Cookie{Name: "visited", Value: "yes"})
		_, _ = w.Write([]byte("cookies: " + r.Header.Get("Cookie")))
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

// wantCookies opens the site twice. The second request must have these cookies.
func wantCookies(t *testing.T, page *browser.Page, site, want string) {
	t.Helper()
	page.Open(t, site)
	page.Open(t, site)
	if got := strings.TrimPrefix(page.Text(t), "cookies:"); strings.TrimSpace(got) != want {
		t.Errorf("got cookies %q, want %q", got, want)
	}
}

func TestProfilesShareNoCookies(t *testing.T) {
	t.Parallel()
	site := startCookieSite(t)
	first, page := browser.Start(t)
	wantCookies(t, page, site, "visited=yes")
	second, other := first.NewProfile(t)
	if n := len(second.Cookies(t)); n != 0 {
		t.Errorf("a new profile: got %d cookies, want none", n)
	}
	wantCookies(t, other, site, "visited=yes")
	second.DeleteCookies(t)
	if own, firsts := len(second.Cookies(t)), len(first.Cookies(t)); own != 0 || firsts != 1 {
		t.Errorf("after deleting the cookies of the second profile: got %d there and %d in the first, want 0 and 1", own, firsts)
	}
}

func TestBlockedCookiesAreNeitherStoredNorSent(t *testing.T) {
	t.Parallel()
	site := startCookieSite(t)
	b, page := browser.Start(t)
	b.AllowCookies(t, false)
	wantCookies(t, page, site, "")
	b.AllowCookies(t, true)
	wantCookies(t, page, site, "visited=yes")
}

func TestPageReportsItsRedirects(t *testing.T) {
	t.Parallel()
	site := startCookieSite(t)
	b, page := browser.Start(t)
	pages := []*browser.Page{page, b.NewPage(t)}
	for i, doc := range browser.OpenAll(t, pages, []string{site + "/from", site + "/over"}) {
		want := []string{site + "/from", site + "/over"}[i:]
		if doc.URL != site+"/to" || doc.Status != http.StatusOK || !slices.Equal(doc.Via, want) {
			t.Errorf("page %d: got %+v, want %s/to by way of %q", i, doc, site, want)
		}
	}
	if doc := page.Open(t, site+"/to"); len(doc.Via) != 0 {
		t.Errorf("without a redirect: got %+v, want an empty Via", doc)
	}
}
