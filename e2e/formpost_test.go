package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// formPostOptions are the options of a site whose server posts its answers.
func formPostOptions(sameSite string) string {
	return "response_mode form_post\ncookie {\nsame_site " + sameSite + "\n}"
}

// TestFormPost logs in with posted answers, in a browser that runs no scripts. The code is in no URL and no log.
func TestFormPost(t *testing.T) {
	t.Parallel()
	for mode, forms := range map[string]int{"lax": 2, "strict": 2, "none": 1} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			as, s := startFake(t, site+"/oauth2/callback")
			as.Set(func(k *fakeas.Knobs) { k.IssParameter = true })
			app := echo.Start(t, echo.Options{})
			caddy := caddyserver.Start(t, protected(site, s, formPostOptions(mode), app))
			c := client.New("", "")
			page, err := c.Visit(t.Context(), site+"/wanted?q=1")
			for range forms {
				if err != nil {
					t.Fatal(err)
				}
				page, err = c.Submit(t.Context(), page)
			}
			if err != nil {
				t.Fatal(err)
			}
			wantAppPage(t, page, site+"/wanted?q=1")
			log := caddy.Log(t)
			for _, secret := range as.Secrets() {
				if secret != "" && strings.Contains(log, secret) {
					t.Errorf("got the secret %.12s… in the log, want none", secret)
				}
				for _, hop := range page.Via {
					if secret != "" && strings.Contains(hop.URL.String(), secret) {
						t.Errorf("got the secret %.12s… in a URL, want none", secret)
					}
				}
			}
			if stats := as.Stats(); stats.Grants[fakeas.GrantCode] != 1 {
				t.Errorf("got %d code requests, want 1", stats.Grants[fakeas.GrantCode])
			}
		})
	}
}

// TestThirdPartyLogin begins logins as a portal does (OpenID Connect Core 1.0, section 4), with a link and with a form, and
// hands parameters on.
func TestThirdPartyLogin(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, protected(site, s, "login_param kc_idp_hint", app))
	q := url.Values{
		"iss": {s.Issuer}, "login_hint": {"bob"}, "target_link_uri": {site + "/deep?x=1"}, "kc_idp_hint": {"google"}, "max_age": {"0"}, "redirect_uri": {"https://evil.test"},
	}
	link := func(q url.Values) *client.Response {
		page, err := client.New("", "").Visit(t.Context(), site+"/oauth2/login?"+q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	form := func(q url.Values) *client.Response {
		portal := &client.Response{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Body: []byte(`<form method="post" action="` + site + `/oauth2/login">`)}
		for name := range q {
			portal.Body = fmt.Appendf(portal.Body, `<input type="hidden" name="%s" value="%s">`, name, q.Get(name))
		}
		page, err := client.New("", "").Submit(t.Context(), portal)
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	for name, begin := range map[string]func(url.Values) *client.Response{"link": link, "form": form} {
		page := begin(q)
		if page.Status != http.StatusOK || page.URL.String() != site+"/deep?x=1" || bearer(page) == "" {
			t.Errorf("%s: got %v, want the app's page", name, page)
		}
		log := as.Log(fakeas.EndpointAuthorize)
		sent := log[len(log)-1].Query
		if sent.Get("login_hint") != "bob" || sent.Get("kc_idp_hint") != "google" || strings.Contains(sent.Encode(), "evil.test") {
			t.Errorf("%s: the server got %v, want the hints", name, sent)
		}
		if sent.Has("max_age") != (name == "link") { // the link was typed, and the form was that of another site
			t.Errorf("%s: the server got max_age %q", name, sent["max_age"])
		}
	}
	q.Set("iss", "https://evil.test")
	for name, begin := range map[string]func(url.Values) *client.Response{"link": link, "form": form} {
		if page := begin(q); page.Status != http.StatusBadRequest || !strings.Contains(string(page.Body), "bad_request") {
			t.Errorf("%s of another issuer: got %v, want 400", name, page)
		}
	}
}

// TestBrowserFormPost logs in at oidc-provider with posted answers. Chromium sends neither kind of cookie with the server's form.
func TestBrowserFormPost(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"lax", "strict"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}, Forms: true})
			app := echo.Start(t, echo.Options{})
			caddy := caddyserver.Start(t, protected(site, &p.Server, formPostOptions(mode), app))
			b, page := browser.Start(t)
			page.Open(t, site+"/wanted?q=1")
			finishPosted(t, p, page, site+"/wanted?q=1")
			if c := b.Cookie(t, sessionCookie); c == nil || !strings.EqualFold(string(c.SameSite), mode) {
				t.Errorf("got session cookie %+v, want SameSite=%s", c, mode)
			}
			for _, at := range page.History(t) {
				if strings.Contains(at, "code=") || strings.HasPrefix(at, site+"/oauth2/callback") {
					t.Errorf("got %s in the history, want no callback", at)
				}
			}
			if strings.Contains(caddy.Log(t), "code=") {
				t.Error("got a code in the log, want none")
			}
			if doc := page.Open(t, site+"/again"); doc.Status != http.StatusOK || doc.URL != site+"/again" {
				t.Errorf("next page: got %+v, want the app", doc)
			}
			if n := p.Stats(t).Requests["GET /auth"]; n != 1 {
				t.Errorf("got %d logins, want 1", n)
			}
		})
	}
}

// isAppPage reports whether a tab shows the app's answer at a URL.
func isAppPage(s browser.Shown, wanted string) bool {
	return s.URL == wanted && bearerIn(http.StatusOK, []byte(s.Text)) != ""
}

// finishPosted submits the forms of the server until the tab is at the wanted page. The pages that post the answer go on by
// themselves.
func finishPosted(t *testing.T, p *op.OIDCProvider, page *browser.Page, wanted string) {
	t.Helper()
	form := ""
	for range 6 { // two forms, and those of a repeated login
		shown := page.Await(t, func(s browser.Shown) bool {
			return isAppPage(s, wanted) || s.URL != form && strings.HasPrefix(s.URL, p.Issuer+"/interaction/")
		})
		if shown.URL == wanted {
			return
		}
		form = shown.URL
		page.BeginSubmit(t, "alice", "any")
	}
	t.Fatalf("got %s after all forms, want %s", page.URL(t), wanted)
}

// TestFormPostTabs opens more tabs than there are login cookies, and logs in from the last tab to the first.
func TestFormPostTabs(t *testing.T) {
	t.Parallel()
	const tabs = 10
	for _, mode := range []string{"lax", "strict"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{site + "/oauth2/callback"}, Forms: true})
			app := echo.Start(t, echo.Options{})
			caddyserver.Start(t, protected(site, &p.Server, formPostOptions(mode), app))
			b, first := browser.Start(t)
			pages := []*browser.Page{first}
			for len(pages) < tabs {
				pages = append(pages, b.NewPage(t))
			}
			wanted := func(i int) string { return fmt.Sprintf("%s/tab/%d?n=%d", site, i, i) }
			for i, page := range pages {
				if doc := page.Open(t, wanted(i)); !strings.HasPrefix(doc.URL, p.Issuer+"/interaction/") {
					t.Fatalf("tab %d: got %+v, want the login form of the server", i, doc)
				}
			}
			for i, page := range slices.Backward(pages) {
				finishPosted(t, p, page, wanted(i))
			}
			if r := first.Fetch(t, "/oauth2/session", browser.Request{}); !strings.Contains(r.Body, `"authenticated":true`) {
				t.Errorf("after all logins: got %+v, want an authenticated session", r)
			}
		})
	}
}

// TestFormPostTabsAtOnce follows ten links at the same time. The server posts each answer at once, and no tab waits for another.
func TestFormPostTabsAtOnce(t *testing.T) {
	t.Parallel()
	const tabs = 10
	for _, mode := range []string{"lax", "strict"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			site := newSite(t)
			as, s := startFake(t, site+"/oauth2/callback")
			app := echo.Start(t, echo.Options{})
			caddyserver.Start(t, protected(site, s, formPostOptions(mode), app))
			b, first := browser.Start(t)
			pages := []*browser.Page{first}
			for len(pages) < tabs {
				pages = append(pages, b.NewPage(t))
			}
			wanted := func(i int) string { return fmt.Sprintf("%s/tab/%d?n=%d", site, i, i) }
			for i, page := range pages {
				browser.Eval[bool](t, page, fmt.Sprintf("(setTimeout(() => { location = %q }), true)", wanted(i)))
			}
			for i, page := range pages {
				page.Await(t, func(s browser.Shown) bool { return isAppPage(s, wanted(i)) })
			}
			if stats := as.Stats(); stats.CodeReuses != 0 {
				t.Errorf("got %d codes that were sent twice, want none", stats.CodeReuses)
			}
		})
	}
}
