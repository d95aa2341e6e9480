package security

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A returnToCase is a value of return_to.
type returnToCase struct {
	name, value string
	// want is the path after the login.
	want string
}

func (w *world) returnToCases() []returnToCase {
	return []returnToCase{
		{"two slashes", "//evil.test", "/"},
		{"three slashes", "///evil.test", "/"},
		{"slash and back slash", `/\evil.test`, "/"},
		{"back slashes", `\\evil.test`, "/"},
		{"another origin", "https://evil.test/", "/"},
		{"upper case", "HTTPS://evil.test", "/"},
		{"no slashes", "https:evil.test", "/"},
		{"javascript", "javascript:alert(1)", "/"},
		{"data", "data:text/html,x", "/"},
		{"user info", "//app.test@evil.test", "/"},
		{"site as user info", w.site + "@evil.test/", "/"},
		{"subdomain of another", "https://app.test.evil.test/", "/"},
		{"longer port", w.site + "0/", "/"},
		{"similar name", "https://evil-app.test/", "/"},
		{"name that ends alike", "https://evilapp.test/", "/"},
		{"plain http", strings.Replace(w.site, "https", "http", 1) + "/x", "/"},
		// A strange path is still a path of this site, because the Location begins with
		// the site's origin.
		{"dot segments", "/..//evil.test", "/..//evil.test"},
		{"tab", "/\t/evil.test", "/"},
		{"line feed", "/\n/evil.test", "/"},
		{"encoded slashes", "/%2f%2fevil.test", "/%2f%2fevil.test"},
		{"space first", " //evil.test", "/"},
		{"empty", "", "/"},
		{"10 KiB", strings.Repeat("a", 10<<10), "/"},
		{"10 KiB path", "/" + strings.Repeat("a", 10<<10), "/"},
		{"own endpoint", logout, "/"},
		{"own page", "/x/y?z=1", "/x/y?z=1"},
		{"own page, whole", w.site + "/x/y?z=1", "/x/y?z=1"},
	}
}

// TestS01ReturnToStaysOnTheSite: with any return_to, the browser ends on the site itself,
// also when the login fails.
func TestS01ReturnToStaysOnTheSite(t *testing.T) {
	w := shared(t)
	for _, tc := range w.returnToCases() {
		t.Run(tc.name, func(t *testing.T) {
			b := w.browser()
			path := login + "?return_to=" + url.QueryEscape(tc.value)
			resp := b.nav(t, b.approve(t, b.start(t, path)).String())
			if got := resp.Header.Get("Location"); resp.Status != http.StatusSeeOther || got != w.site+tc.want {
				t.Errorf("got %d to %.200q, want 303 to %s", resp.Status, got, tc.want)
			}
			w.checkOwnSite(t, resp.Header.Get("Location"))

			w.idp.Fail(fakeas.OAuthError("invalid_scope").At(fakeas.EndpointAuthorize))
			b = w.browser()
			resp = b.nav(t, b.approve(t, b.start(t, path)).String())
			if resp.Status != http.StatusBadGateway {
				t.Errorf("failed login: got %v, want 502", resp)
			}
			w.checkOwnLinks(t, resp.Body)
		})
	}
	t.Run("100 KiB", func(t *testing.T) {
		resp := w.browser().nav(t, login+"?return_to=/"+strings.Repeat("a", 100<<10))
		if to := resp.Location(); resp.Status != http.StatusRequestHeaderFieldsTooLarge && !w.isAuthorization(to) {
			t.Errorf("got %d, want 431 or a login", resp.Status)
		}
	})
}

var links = regexp.MustCompile(`(?:href|action|src)="([^"]*)"|url=([^"]*)"`)

// checkOwnLinks checks that all links of a page, and the pages in their return_to, lead to
// the site.
func (w *world) checkOwnLinks(t *testing.T, page []byte) {
	t.Helper()
	for _, match := range links.FindAllStringSubmatch(string(page), -1) {
		link := strings.ReplaceAll(match[1]+match[2], "&amp;", "&")
		w.checkOwnSite(t, link)
		if u, err := url.Parse(link); err != nil {
			t.Errorf("link %q: %v", link, err)
		} else {
			w.checkOwnSite(t, u.Query().Get("return_to"))
		}
	}
}

// TestS04AbsoluteTargetIsIgnored: a whole URL in the request line changes neither the
// origin nor the page after the login.
func TestS04AbsoluteTargetIsIgnored(t *testing.T) {
	w := shared(t)
	t.Run("another host", func(t *testing.T) {
		var resp *rawAnswer
		reached := w.appRequests(func() {
			resp = w.raw(t, "GET https://evil.test/p HTTP/1.1\r\nHost: "+w.host+"\r\n"+strings.Join(navigationHeaders, "\r\n")+"\r\nConnection: close\r\n\r\n")
		})
		// Caddy has no site for this host and sends an empty answer.
		if len(reached) != 0 || len(resp.Body) != 0 || resp.Header.Get("Location") != "" || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("got %d %v %q, want an empty answer", resp.Status, resp.Header, resp.Body)
		}
	})
	t.Run("own host, other scheme", func(t *testing.T) {
		resp := w.raw(t, "GET http://"+w.host+"/p?q=1 HTTP/1.1\r\nHost: evil.test\r\n"+strings.Join(navigationHeaders, "\r\n")+"\r\nConnection: close\r\n\r\n")
		to, err := url.Parse(resp.Header.Get("Location"))
		if err != nil || resp.Status != http.StatusFound || !w.isAuthorization(to) {
			t.Fatalf("got %d %v, want the start of a login", resp.Status, resp.Header)
		}
		if got := to.Query().Get("redirect_uri"); got != w.site+callback {
			t.Errorf("got redirect_uri %q, want the site's", got)
		}
		b := w.browser()
		b.storeCookies(t, resp)
		done := b.nav(t, b.approve(t, to).String())
		if got := done.Header.Get("Location"); got != w.site+"/p?q=1" {
			t.Errorf("got page %q after the login, want /p?q=1", got)
		}
	})
}

// storeCookies adds the cookies of a raw answer to the browser.
func (b *browser) storeCookies(t *testing.T, resp *rawAnswer) {
	t.Helper()
	u, err := url.Parse(b.w.site)
	if err != nil {
		t.Fatal(err)
	}
	b.Jar.Update(u, resp.Header.Values("Set-Cookie"))
}

// redirectURI starts a login with the given header lines. It returns the redirect_uri of
// the authorization request, or "" if no login started.
func (w *world) redirectURI(t *testing.T, lines ...string) string {
	t.Helper()
	resp := w.browser().send(t, http.MethodGet, "/deep", "", append(lines, navigationHeaders...)...)
	to := resp.Location()
	if resp.Status != http.StatusFound || !w.isAuthorization(to) {
		return ""
	}
	for _, c := range resp.Header.Values("Set-Cookie") {
		if !strings.HasPrefix(c, loginCookie) || !strings.Contains(c, "; Secure") {
			t.Errorf("with %q: the login cookie %q is not Secure", lines, strings.SplitN(c, "=", 2)[0])
		}
	}
	return to.Query().Get("redirect_uri")
}

// TestS05HeadersDoNotChangeRedirectURI: no header changes the redirect_uri, whether the
// origin comes from base_url or from the request.
func TestS05HeadersDoNotChangeRedirectURI(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*testing.T) *world{"base_url": shared, "origin of the request": sharedBare} {
		t.Run(name, func(t *testing.T) {
			w := take(t)
			for _, line := range []string{
				"X-Forwarded-Host: evil.test", "Forwarded: host=evil.test", "X-Host: evil.test", "X-Original-Host: evil.test",
				"X-Forwarded-Server: evil.test", "X-HTTP-Host-Override: evil.test", "X-Forwarded-Port: 80", "X-Forwarded-Prefix: //evil.test",
			} {
				if got := w.redirectURI(t, line); got != w.site+callback {
					t.Errorf("%s: got redirect_uri %q, want the site's", line, got)
				}
			}
			// The site is not served under other names.
			for _, host := range []string{"evil.test", "app.test.evil.test", "evil.test:443@" + w.host} {
				var resp *rawAnswer
				reached := w.appRequests(func() {
					resp = w.raw(t, "GET / HTTP/1.1\r\nHost: "+host+"\r\n"+strings.Join(navigationHeaders, "\r\n")+"\r\nConnection: close\r\n\r\n")
				})
				if resp.Header.Get("Location") != "" || len(resp.Body) != 0 && resp.Status < 400 || len(reached) != 0 {
					t.Errorf("Host %s: got %d %v %q, and the app got %d requests", host, resp.Status, resp.Header, resp.Body, len(reached))
				}
			}
		})
	}
}

// TestS07LogoutEndsAtConfiguredPages: no parameter changes the page after a logout.
func TestS07LogoutEndsAtConfiguredPages(t *testing.T) {
	w := shared(t)
	for _, query := range []string{
		"return_to=//evil.test", "post_logout_redirect_uri=https://evil.test", "post_logout_redirect=https://evil.test/",
		"rd=https://evil.test&redirect=https://evil.test&state=x&id_token_hint=x",
	} {
		t.Run(query, func(t *testing.T) {
			b := w.browser()
			b.login(t, "/")
			page := b.nav(t, logout+"?"+query)
			if page.Status != http.StatusOK || strings.Contains(string(page.Body), "evil") {
				t.Errorf("GET: got %v, want 200 without the query", page)
			}
			w.checkOwnLinks(t, page.Body)
			resp := b.send(t, http.MethodPost, logout+"?"+query, query,
				"Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin")
			to := resp.Location()
			if to == nil || !strings.HasPrefix(to.String(), w.idp.URL+"/end_session?") || strings.Contains(to.String(), "evil") ||
				to.Query().Get("post_logout_redirect_uri") != w.site+logoutCallback {
				t.Fatalf("POST: got %d, want a redirect to the configured page", resp.Status)
			}
			back := b.nav(t, to.String()).Location()
			if back == nil || back.Path != logoutCallback {
				t.Fatalf("the authorization server sends the browser to %v", back)
			}
			last := b.nav(t, back.String()+"&"+query)
			if last.Status != http.StatusOK || strings.Contains(string(last.Body), "evil") {
				t.Errorf("after the logout: got %v, want 200 without the query", last)
			}
			w.checkOwnLinks(t, last.Body)
		})
	}
}

// TestS08BodyIsNotReplayed: the body of a POST without a session is neither kept nor sent
// on.
func TestS08BodyIsNotReplayed(t *testing.T) {
	w := shared(t)
	marker := canary("BODY_", 32)
	w.addSecret(marker)
	body := marker + strings.Repeat("x", 1<<20)
	before := len(w.idp.Log())
	for _, tc := range []struct {
		name  string
		lines []string
	}{
		{"text", []string{"Content-Type: text/plain"}},
		{"no type", nil},
		{"form in a window", append([]string{"Content-Type: application/x-www-form-urlencoded"}, navigationHeaders...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reached := w.appRequests(func() {
				resp := w.browser().send(t, http.MethodPost, "/form", body, tc.lines...)
				if resp.Status != http.StatusUnauthorized || resp.Header.Get("Location") != "" {
					t.Errorf("got %d to %q, want 401", resp.Status, resp.Header.Get("Location"))
				}
			})
			if len(reached) != 0 {
				t.Errorf("the app got %v, want no request", reached)
			}
		})
	}
	if got := w.idp.Log(); len(got) != before {
		t.Errorf("the authorization server got %v, want no request", got[before:])
	}
}

// injections are percent-encoded values: line ends, Caddy placeholders, markup and invalid
// text.
var injections = []string{
	"%0d%0aSet-Cookie:%20x=1", "%0aX-Injected:%20y", "%0d%0a%0d%0a<script>", "{env.CLIENT_SECRET}", "{env.HOME}",
	"{http.request.host}", "{file./etc/passwd}", "{http.vars.client_ip}", "%7Benv.HOME%7D", "%00", "%ff%fe", "%c0%af", "%e2%80%a8",
}

// checkNotInjected checks that the answer to a request with an injection contains no added
// header line and no expanded placeholder.
func (w *world) checkNotInjected(t *testing.T, resp *rawAnswer) {
	t.Helper()
	head := string(resp.Bytes)
	for _, bad := range []string{"\nSet-Cookie: x=1", "\nX-Injected:", "\nx-injected:"} {
		if strings.Contains(head, bad) {
			t.Errorf("got an injected line in %q", head)
		}
	}
	for _, bad := range []string{w.instances[0].dir(), "root:", "127.0.0.1/", "<script"} {
		if strings.Contains(strings.ReplaceAll(head, w.idp.URL+"/", "")+string(resp.Body), bad) {
			t.Errorf("got %q in %q %q", bad, head, resp.Body)
		}
	}
	if resp.Status == 0 || resp.Status == http.StatusInternalServerError || resp.Status == http.StatusOK {
		t.Errorf("got %d, want neither 200 nor 500", resp.Status)
	}
}

// TestS09InputIsNotInterpreted: line ends, placeholders and invalid text have no effect in
// a parameter, or in a claim that becomes a header of the app.
func TestS09InputIsNotInterpreted(t *testing.T) {
	w := shared(t)
	nav := append([]string{}, navigationHeaders...)
	for _, value := range injections {
		t.Run(value, func(t *testing.T) {
			w.checkNotInjected(t, w.rawGet(t, login+"?return_to=/"+value, nav...))
			w.checkNotInjected(t, w.rawGet(t, login+"?login_hint="+value, nav...))
			w.checkNotInjected(t, w.rawGet(t, login+"?iss="+value, nav...))
			w.checkNotInjected(t, w.rawGet(t, callback+"?code=x&state="+value, nav...))
			for _, query := range []string{"error=" + value, "error=access_denied&error_description=" + value, "code=x&iss=" + value} {
				b := w.browser()
				state := b.start(t, "/x").Query().Get("state")
				lines := append([]string{"Cookie: " + strings.Join(b.logins(), "; ")}, nav...)
				w.checkNotInjected(t, w.rawGet(t, callback+"?state="+url.QueryEscape(state)+"&"+query, lines...))
			}
			// The cookies of this new login must be valid.
			b := w.browser()
			b.storeCookies(t, w.rawGet(t, login+"?return_to=/"+value, nav...))
		})
	}
	for i, value := range []string{
		"x\r\nX-Injected: y", "x\nX-Injected: y", "{env.CLIENT_SECRET}", "{env.HOME}", "{http.request.host}", "{file./etc/passwd}",
		"\x00", "\x7f", "\u2028", "a,b", "",
	} {
		t.Run(fmt.Sprintf("claim %q", value), func(t *testing.T) {
			user := fmt.Sprintf("mallory%d", i)
			w.idp.SetUser(fakeas.User{Name: user, Subject: "s" + value, Claims: map[string]any{"email": value}})
			page := w.browser().loginAs(t, user, "/claims")
			seen, _ := appAnswer(page)
			for name, want := range map[string]string{"X-User": "s" + value, "X-Email": value} {
				if strings.ContainsAny(want, "\r\n\x00\x7f") {
					want = ""
				}
				got := seen.Values(name)
				if len(got) > 1 || strings.Join(got, "") != want {
					t.Errorf("got %s %q, want %q", name, got, want)
				}
			}
			if seen.Values("X-Injected") != nil || seen.Malformed != "" {
				t.Errorf("the app got %v", seen)
			}
		})
	}
}

// hostileNavigation is a navigation with a script in its Referer.
var hostileNavigation = append([]string{"Referer: javascript:alert(1)"}, navigationHeaders...)

// checkNoForeignMarkup checks that an error page contains no markup of the request and that its
// headers forbid scripts.
func checkNoForeignMarkup(t *testing.T, resp *rawAnswer) {
	t.Helper()
	if resp.Status < 400 {
		t.Errorf("got %d, want an error", resp.Status)
	}
	for _, bad := range []string{"<script", "<img", "alert(1)", "javascript:"} {
		if strings.Contains(string(resp.Body), bad) {
			t.Errorf("got %q in %q", bad, resp.Body)
		}
	}
	policy := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("got Content-Security-Policy %q", policy)
	}
	if got := resp.Header.Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("got X-Content-Type-Options %q, want nosniff", got)
	}
}

// TestS10ErrorPageHasNoForeignMarkup: no part of a request becomes markup of a page.
func TestS10ErrorPageHasNoForeignMarkup(t *testing.T) {
	w := shared(t)
	const attack = `error=<script>alert(1)</script>&error_description="><img%20src=x%20onerror=alert(1)>`
	t.Run("no login", func(t *testing.T) {
		checkNoForeignMarkup(t, w.rawGet(t, callback+"?"+attack+"&state=x", hostileNavigation...))
	})
	t.Run("own login", func(t *testing.T) {
		b := w.browser()
		state := b.start(t, "/x").Query().Get("state")
		checkNoForeignMarkup(t, w.rawGet(t, callback+"?"+attack+"&state="+state, append(slices.Clone(hostileNavigation), "Cookie: "+strings.Join(b.logins(), "; "))...))
	})
}

// TestS10PageForAPostHasNoForeignMarkup: the same holds for the page that answers a form without a
// session.
func TestS10PageForAPostHasNoForeignMarkup(t *testing.T) {
	w := sharedBare(t) // the module makes the error pages here
	resp := w.raw(t, w.request("POST /x?<script>alert(1)</script>", append(slices.Clone(hostileNavigation), "Content-Length: 0")...))
	checkNoForeignMarkup(t, resp)
	w.checkOwnLinks(t, resp.Body)
}
