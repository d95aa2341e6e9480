package security

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A variant is one more site of a world's first instance: with options, an app
// and an authorization server of its own, which a test may spoil as it likes
// while everybody else's work. It costs a reload, not a Caddy.
type variant struct {
	name string // the host is name.app.test
	// options are lines of the directive besides those that make a login work.
	options string
	// issuer replaces the URL of the server. "-": there is no such line.
	issuer string
	// quiet leaves its requests out of the access log.
	noAccessLog bool
	// check judges each token at the app, see echo.Options.
	checkToken func(token string) bool

	w   *world
	url string
	idp *fakeas.Server
	app *echo.Server
}

// serve gives each variant its servers and adds all to the first instance,
// until the test ends.
func (w *world) addVariants(t *testing.T, all ...*variant) {
	t.Helper()
	for _, v := range all {
		v.w = w
		v.url = fmt.Sprintf("https://%s.%s%s", v.name, siteName, strings.TrimPrefix(w.host, siteName))
		v.app = echo.Start(t, echo.Options{HideAuthorization: true, Check: v.checkToken})
		if v.idp == nil {
			v.idp = fakeas.Start(t, fakeas.Options{})
			v.idp.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
		}
		v.idp.AddClient(fakeas.Client{
			ID: clientID, Secret: w.clientSecret, RedirectURIs: []string{v.url + callback},
			PostLogoutRedirectURIs: []string{v.url + logoutCallback},
		})
	}
	w.reloadVariants(t, all...)
	atCleanup(t, func(t testing.TB) {
		for _, v := range all {
			v.idp.ClearFaults()
			for _, value := range v.idp.Secrets() {
				w.addSecret(tail(value)) // of JWTs the signature: they begin alike
			}
		}
		if err := w.instances[0].Reload(t, w.instances[0].config); err != nil {
			t.Error(err)
		}
	})
}

// serveAnew reloads the configuration with these variants. A site whose server
// is configured as before goes on with what it knows of it.
func (w *world) reloadVariants(t testing.TB, all ...*variant) {
	t.Helper()
	config := w.instances[0].config
	for _, v := range all {
		config.Sites += v.site()
	}
	if err := w.instances[0].Reload(t, config); err != nil {
		t.Fatal(err)
	}
}

// site is the variant in the Caddyfile.
func (v *variant) site() string {
	lines := []string{
		"client_id " + clientID, "client_secret {env.CLIENT_SECRET}", "base_url " + v.url,
		"key {file." + v.w.keyFile + "}",
	}
	if !strings.Contains(v.options, "scope ") {
		lines = append(lines, "scope openid profile email offline_access")
	}
	switch v.issuer {
	case "":
		lines = append(lines, "issuer "+v.idp.URL)
	case "-":
	default:
		lines = append(lines, "issuer "+v.issuer)
	}
	if v.w.redis != nil && !strings.Contains(v.options, "store ") {
		lines = append(lines, "store redis "+v.w.redis.URL())
	}
	lines = append(lines, strings.ReplaceAll(v.options, "{IDP}", v.idp.URL))
	log := "log"
	if v.noAccessLog {
		log = "log_skip"
	}
	return fmt.Sprintf("\n%s {\nbind 127.0.0.1\n%s\n%s\noauth_session {\n\t%s\n}\n"+
		"reverse_proxy %s {\n\theader_up X-User {http.auth.user.id}\n\theader_up X-Email {http.auth.user.email}\n}\n}\n",
		v.url, v.w.cert, log, strings.Join(lines, "\n\t"), v.app.Addr())
}

// visit opens a page and follows all redirects.
func (v *variant) visit(t testing.TB, b *browser, path string) *client.Response {
	t.Helper()
	page, err := b.Visit(t.Context(), v.url+path)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// signIn goes through a login as a certain user and returns the page it ends
// on, whatever that is.
func (v *variant) signIn(t testing.TB, b *browser, user string) *client.Response {
	t.Helper()
	return v.visit(t, b, login+"?"+url.Values{"login_hint": {user}, "return_to": {"/signed-in"}}.Encode())
}

// login is signIn that has to succeed.
func (v *variant) login(t testing.TB, b *browser, user string) *client.Response {
	t.Helper()
	page := v.signIn(t, b, user)
	if seen, ok := appAnswer(page); page.Status != http.StatusOK || !ok || len(seen.Values("Authorization")) != 1 {
		t.Fatalf("the login as %s ended with %v", user, page)
	}
	return page
}

// get is what a script of the site sends.
func (v *variant) get(t testing.TB, b *browser, path string) *client.Response {
	t.Helper()
	return b.xhr(t, http.MethodGet, v.url+path)
}

// session is the value of the session's cookie, or "".
func (v *variant) session(b *browser) string {
	u, _ := url.Parse(v.url) // was made here
	if c := b.Jar.Cookie(u, sessionCookie); c != nil {
		return c.Value
	}
	return ""
}

// refreshes counts the refreshes that reached the variant's server.
func (v *variant) refreshes() int { return v.idp.Stats().Grants[fakeas.GrantRefresh] }

// tokens are the access tokens of a user, oldest first.
func issuedTokens(idp *fakeas.Server, kind fakeas.Kind, user string) []string {
	var all []string
	for _, issued := range idp.Tokens() {
		if issued.Kind == kind && issued.User == user {
			all = append(all, issued.Value)
		}
	}
	return all
}

// sent reports whether an app has got a token.
func appReceived(app *echo.Server, token string) bool {
	for _, r := range app.Requests() {
		if r.Bearer() == token {
			return true
		}
	}
	return false
}

// notLoggedIn demands the generic page of a login that failed, and nothing of a
// session.
func checkNoLogin(t testing.TB, page *client.Response, cookie string, statuses ...int) {
	t.Helper()
	if cookie != "" {
		t.Error("there is a session")
	}
	if _, ok := appAnswer(page); ok {
		t.Errorf("the app was reached: %d", page.Status)
	}
	if !slices.Contains(statuses, page.Status) {
		t.Errorf("%s%s: got %d, want one of %v", page.URL.Host, page.URL.Path, page.Status, statuses)
	}
}

// outlive lets real time pass, which is what makes tokens and sessions old.
func sleep(t testing.TB, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// told makes a server say that access tokens live for so many seconds, at login
// and at refreshes. They really live for long.
func announceLifetimes(idp *fakeas.Server, atLogin, atRefresh int) {
	idp.Set(func(k *fakeas.Knobs) {
		k.LoginAnswer = fakeas.Edit{Set: map[string]any{"expires_in": atLogin}}
		k.RefreshAnswer = fakeas.Edit{Set: map[string]any{"expires_in": atRefresh}}
	})
}

// subjectOf reads the sub of a token answer's ID token.
func subjectOf(answer map[string]any) string {
	raw, _ := answer["id_token"].(string)
	var claims struct {
		Subject string `json:"sub"`
	}
	_ = json.Unmarshal(decodeSegment(raw, 1), &claims) // nobody's, if it is none
	return claims.Subject
}
