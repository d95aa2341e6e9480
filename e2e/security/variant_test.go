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

// A variant is an additional site of the first instance, with its own options, app and
// authorization server. A test can break these without breaking the world's own site. A
// variant costs a reload, not a new Caddy.
type variant struct {
	name string // the host is name.app.test
	// options are lines of the directive, in addition to those that a login needs.
	options string
	// issuer replaces the URL of the server. "-" omits the line.
	issuer string
	// keyFile is the client's private key, which replaces the client secret.
	keyFile string
	// noAccessLog excludes the site from the access log.
	noAccessLog bool
	// checkToken validates each token at the app, see echo.Options.
	checkToken func(token string) bool

	w   *world
	url string
	idp *fakeas.Server
	app *echo.Server
}

// addVariants starts the servers of the variants and adds their sites to the first
// instance, until the test ends.
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
		registered := fakeas.Client{
			ID: clientID, Secret: w.clientSecret, RedirectURIs: []string{v.url + callback},
			PostLogoutRedirectURIs: []string{v.url + logoutCallback},
		}
		if v.keyFile != "" {
			registered.Secret, registered.AuthMethod = "", fakeas.AuthPrivateKeyJWT
		}
		v.idp.AddClient(registered)
	}
	w.reloadVariants(t, all...)
	atCleanup(t, func(t testing.TB) {
		for _, v := range all {
			v.idp.ClearFaults()
			for _, value := range v.idp.Secrets() {
				w.addSecret(tail(value)) // the signature of a JWT: all JWTs begin alike
			}
		}
		if err := w.instances[0].Reload(t, w.instances[0].config); err != nil {
			t.Error(err)
		}
	})
}

// reloadVariants reloads the configuration with these variants. A site with an unchanged
// authorization server keeps its cached metadata and keys.
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

// site returns the Caddyfile block of the variant.
func (v *variant) site() string {
	lines := []string{"client_id " + clientID, "base_url " + v.url, "key {file." + v.w.keyFile + "}"}
	if v.keyFile != "" {
		lines = append(lines, "client_key "+v.keyFile)
	} else {
		lines = append(lines, "client_secret {env.CLIENT_SECRET}")
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

// signIn goes through a login as a user and returns the last page. The login may fail.
func (v *variant) signIn(t testing.TB, b *browser, user string) *client.Response {
	t.Helper()
	return v.visit(t, b, login+"?"+url.Values{"login_hint": {user}, "return_to": {"/signed-in"}}.Encode())
}

// login is signIn for a login that must succeed.
func (v *variant) login(t testing.TB, b *browser, user string) *client.Response {
	t.Helper()
	page := v.signIn(t, b, user)
	// A call of Redis may exceed its time-out while the machine is busy.
	for try := 1; try < 5 && page.Status == http.StatusServiceUnavailable && page.Header.Get("Retry-After") != ""; try++ {
		page = v.signIn(t, b, user)
	}
	if seen, ok := appAnswer(page); page.Status != http.StatusOK || !ok || len(seen.Values("Authorization")) != 1 {
		t.Fatalf("login as %s: got %v", user, page)
	}
	return page
}

// get sends a GET as a script of the site does.
func (v *variant) get(t testing.TB, b *browser, path string) *client.Response {
	t.Helper()
	return b.xhr(t, http.MethodGet, v.url+path)
}

// session returns the value of the session cookie, or "".
func (v *variant) session(b *browser) string {
	u, _ := url.Parse(v.url) // a valid URL by construction
	if c := b.Jar.Cookie(u, sessionCookie); c != nil {
		return c.Value
	}
	return ""
}

// refreshes returns the number of refreshes at the variant's server.
func (v *variant) refreshes() int { return v.idp.Stats().Grants[fakeas.GrantRefresh] }

// issuedTokens returns the tokens of one kind issued to a user, oldest first.
func issuedTokens(idp *fakeas.Server, kind fakeas.Kind, user string) []string {
	var all []string
	for _, issued := range idp.Tokens() {
		if issued.Kind == kind && issued.User == user {
			all = append(all, issued.Value)
		}
	}
	return all
}

// appReceived reports whether an app has received a token.
func appReceived(app *echo.Server, token string) bool {
	for _, r := range app.Requests() {
		if r.Bearer() == token {
			return true
		}
	}
	return false
}

// checkNoLogin checks that a login failed with one of the statuses, without a session and
// without a request to the app.
func checkNoLogin(t testing.TB, page *client.Response, cookie string, statuses ...int) {
	t.Helper()
	if cookie != "" {
		t.Error("the browser has a session")
	}
	if _, ok := appAnswer(page); ok {
		t.Errorf("the app answered: %d", page.Status)
	}
	if !slices.Contains(statuses, page.Status) {
		t.Errorf("%s%s: got %d, want one of %v", page.URL.Host, page.URL.Path, page.Status, statuses)
	}
}

// sleep lets real time pass, where only time makes a token or a session old.
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

// announceLifetimes sets the expires_in of access tokens, in seconds, at logins and at
// refreshes. The server accepts the tokens for longer.
func announceLifetimes(idp *fakeas.Server, atLogin, atRefresh int) {
	idp.Set(func(k *fakeas.Knobs) {
		k.LoginAnswer = fakeas.Edit{Set: map[string]any{"expires_in": atLogin}}
		k.RefreshAnswer = fakeas.Edit{Set: map[string]any{"expires_in": atRefresh}}
	})
}

// subjectOf returns the sub of a token answer's ID token.
func subjectOf(answer map[string]any) string {
	raw, _ := answer["id_token"].(string)
	var claims struct {
		Subject string `json:"sub"`
	}
	_ = json.Unmarshal(decodeSegment(raw, 1), &claims) // an invalid token has no subject
	return claims.Subject
}

// awaitStartChecks waits until the site has fetched the keys at its start. It returns a
// function that counts later fetches.
func (v *variant) awaitStartChecks(t testing.TB) (fetches func() int) {
	t.Helper()
	count := func() int { return v.idp.Stats().Requests[fakeas.EndpointJWKS] }
	eventually(t, "fetch of the keys at the start", func() bool { return count() > 0 })
	atStart := count()
	return func() int { return count() - atStart }
}
