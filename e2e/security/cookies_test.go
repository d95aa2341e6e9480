package security

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS40CookiesAreSafeAndRandom: the cookies have the safe attributes and contain no personal
// data. No two of many session cookies share eight characters at the same position.
func TestS40CookiesAreSafeAndRandom(t *testing.T) {
	w := shared(t)
	b := w.browser()
	start := b.nav(t, "/x")
	done := b.nav(t, b.approve(t, start.Location()).String())
	lines := append(start.Header.Values("Set-Cookie"), done.Header.Values("Set-Cookie")...)
	if len(lines) < 2 {
		t.Fatalf("got %d cookies, want at least 2", len(lines))
	}
	for _, line := range lines {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || len(c.Value) > 4096 ||
			c.SameSite != http.SameSiteLaxMode && c.SameSite != http.SameSiteStrictMode {
			t.Errorf("%s: got attributes %s", c.Name, line[len(c.Name)+1+len(c.Value):])
		}
		raw, _ := base64.RawURLEncoding.DecodeString(c.Value)
		for _, text := range []string{c.Value, string(raw)} {
			for _, personal := range []string{fakeas.DefaultUser, "example.test"} {
				if strings.Contains(text, personal) {
					t.Errorf("%s contains %s", c.Name, personal)
				}
			}
			if found := issuedCanary.FindString(text); found != "" {
				t.Errorf("%s contains %.12s…", c.Name, found)
			}
		}
	}
	t.Run("entropy", func(t *testing.T) {
		values := w.loginMany(t, floodSize(t, 200))
		const window = 8
		seen := map[string]bool{}
		for _, v := range values {
			for at := 0; at+window <= len(v); at++ {
				if piece := fmt.Sprintf("%d %s", at, v[at:at+window]); seen[piece] {
					t.Fatalf("two cookies share %d characters at position %d", window, at)
				} else {
					seen[piece] = true
				}
			}
		}
	})
}

// loginMany logs in n times, at most 2,000 times, and returns the values of the session
// cookies.
func (w *world) loginMany(t *testing.T, n int) []string {
	n = min(n, 2000)
	var workers sync.WaitGroup
	var mu sync.Mutex
	var values []string
	const parallel = 4
	for range parallel {
		workers.Go(func() {
			b := w.browser()
			for range n / parallel {
				b.Jar = new(client.Jar)
				if _, err := b.tryLogin(t.Context(), "/"); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				values = append(values, b.session())
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if len(values) != n/parallel*parallel {
		t.Fatalf("got %d logins, want %d", len(values), n/parallel*parallel)
	}
	return values
}

// TestS41CookieIsDeletedWithItsSession: the browser drops the cookie at a logout and when
// a request discovers the end of the session. A cookie that never had a session is left
// alone (docs/decisions/0005).
func TestS41CookieIsDeletedWithItsSession(t *testing.T) {
	w := shared(t)
	deleted := func(t *testing.T, b *browser, resp *client.Response) {
		t.Helper()
		n := 0
		for _, line := range resp.Header.Values("Set-Cookie") {
			c, err := http.ParseSetCookie(line)
			if err != nil {
				t.Fatal(err)
			}
			if c.Name != sessionCookie {
				continue
			}
			n++
			if c.Value != "" || c.MaxAge >= 0 || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" {
				t.Errorf("got deletion %q", line)
			}
		}
		if n != 1 || b.session() != "" {
			t.Errorf("got %d deletions in %v, want 1; the browser still has the cookie: %v", n, resp, b.session() != "")
		}
	}
	t.Run("logout", func(t *testing.T) {
		b := w.browser()
		b.login(t, "/")
		deleted(t, b, b.xhr(t, http.MethodPost, logout))
	})
	for name, request := range map[string]func(*browser, *testing.T) *client.Response{
		"script":     func(b *browser, t *testing.T) *client.Response { return b.xhr(t, http.MethodGet, "/x") },
		"navigation": func(b *browser, t *testing.T) *client.Response { return b.nav(t, "/x") },
	} {
		t.Run("end of the session, "+name, func(t *testing.T) {
			b, expired := w.loginWithShortToken(t)
			w.idp.Fail(fakeas.OAuthError("invalid_grant").For(fakeas.GrantRefresh).Repeat(-1))
			defer w.idp.ClearFaults()
			// With an expired token the request itself discovers the end. Only such a
			// request gets the header that deletes the cookie.
			sleep(t, expired)
			resp := request(b, t)
			if resp.Status != http.StatusUnauthorized && !w.isAuthorization(resp.Location()) {
				t.Errorf("got %v, want the end of the session", resp)
			}
			deleted(t, b, resp)
		})
	}
	t.Run("no session", func(t *testing.T) {
		resp := w.rawGet(t, "/x", append([]string{"Cookie: " + sessionCookie + "=" + strings.Repeat("A", 43)}, scriptHeaders...)...)
		if resp.Status != http.StatusUnauthorized || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("got %d %v, want 401 without cookies", resp.Status, resp.Header)
		}
	})
}

// normalized returns the parts of an answer that must be equal for every invalid cookie.
func normalized(resp *rawAnswer) string {
	header := resp.Header.Clone()
	header.Del("Date")
	text := fmt.Sprint(resp.Status, slices.Sorted(maps.Keys(header)))
	if resp.Status == http.StatusFound { // Location has a random state and nonce
		return text + fmt.Sprint(len(resp.Header.Get("Location")))
	}
	return text + fmt.Sprint(header) + string(resp.Body)
}

// altered returns the value with another base64url character at a position.
func altered(value string, at int) string {
	other := byte('A')
	if value[at] == other {
		other = 'B'
	}
	return value[:at] + string(other) + value[at+1:]
}

// TestS42AlteredCookieIsLikeAnUnknownOne: a cookie with any character changed gets the
// same answer as a cookie that never existed.
func TestS42AlteredCookieIsLikeAnUnknownOne(t *testing.T) {
	w := shared(t)
	b := w.browser()
	to := b.start(t, "/x")
	answer := b.approve(t, to)
	pair := b.logins()[0]
	name, attempt, _ := strings.Cut(pair, "=")
	// This must precede the real callback, which uses up the login.
	calls := w.tokenRequests()
	t.Run("login cookie", func(t *testing.T) {
		ask := func(value string) *rawAnswer {
			return w.rawGet(t, answer.RequestURI(), append([]string{"Cookie: " + name + "=" + value}, navigationHeaders...)...)
		}
		want := normalized(ask(strings.Repeat("A", len(attempt))))
		for at := range attempt {
			if got := normalized(ask(altered(attempt, at))); got != want {
				t.Fatalf("altered at %d: got %s, want %s", at, got, want)
			}
		}
		if n := w.tokenRequests(); n != calls {
			t.Errorf("got %d token requests, want none", n-calls)
		}
	})
	b.nav(t, answer.String())
	value := b.session()
	if value == "" {
		t.Fatal("the unaltered login cookie gave no session")
	}
	for kind, lines := range map[string][]string{"script": scriptHeaders, "navigation": navigationHeaders} {
		t.Run("session cookie, "+kind, func(t *testing.T) {
			ask := func(value string) *rawAnswer {
				return w.rawGet(t, "/x", append([]string{"Cookie: " + sessionCookie + "=" + value}, lines...)...)
			}
			want := ask(strings.Repeat("A", len(value)))
			if want.Status != http.StatusUnauthorized && want.Status != http.StatusFound {
				t.Fatalf("unknown cookie: got %d, want 401 or 302", want.Status)
			}
			for at := range value {
				if got := normalized(ask(altered(value, at))); got != normalized(want) {
					t.Errorf("altered at %d: got %s, want %s", at, got, normalized(want))
				}
			}
			if len(want.Body) > 0 && strings.Contains(strings.ToLower(string(want.Body)), "key") {
				t.Errorf("the answer mentions keys: %s", want.Body)
			}
		})
	}
	b.checkSession(t)
}

// TestS43MalformedCookieIsNoCookie: a malformed cookie neither opens a session nor causes
// an error.
func TestS43MalformedCookieIsNoCookie(t *testing.T) {
	w := shared(t)
	own := sessionCookie + "="
	for name, line := range map[string]string{
		"empty": own, "percent": own + "%", "quoted": own + `"quoted"`, "two equal signs": own + "a=b",
		"4 KiB": own + strings.Repeat("A", 4<<10), "15 KiB": own + strings.Repeat("A", 15<<10), "60 KiB": own + strings.Repeat("A", 60<<10),
		"no UTF-8": own + "\xff\xfe\x80", "5,000 cookies": strings.Repeat("a=b; ", 5000) + own + "x",
		"2,000 session cookies": strings.Repeat(own+"x; ", 2000), "1,000 login cookies": strings.Repeat(loginCookie+"x=y; ", 1000),
		"chunks": sessionCookie + "_chunks=99999999; " + sessionCookie + "_0=a", "separators": "; ; ;=", "no equal sign": sessionCookie,
		"padding": own + strings.Repeat("A", 43) + "=", "other alphabet": own + strings.Repeat("+", 43), "43 of them": own + strings.Repeat("A", 43),
		"tab": own + "\t", "control character": own + "\x01", "comma": own + "a,b", "brace": own + "{env.HOME}", "only equal signs": strings.Repeat("=", 100),
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/x", sessionInfo} {
				var resp *rawAnswer
				reached := w.appRequests(func() { resp = w.rawGet(t, path, append([]string{"Cookie: " + line}, scriptHeaders...)...) })
				switch {
				case len(reached) != 0:
					t.Errorf("%s: the app got a request", path)
				case resp.Status == http.StatusBadRequest, resp.Status == http.StatusRequestHeaderFieldsTooLarge:
				case path == sessionInfo && resp.Status == http.StatusOK && strings.Contains(string(resp.Body), `"authenticated":false`):
				case path == "/x" && resp.Status == http.StatusUnauthorized && resp.Header.Get("Set-Cookie") == "":
				default:
					t.Errorf("%s: got %d %v %s, want the answer without a session", path, resp.Status, resp.Header, resp.Body)
				}
			}
		})
	}
}

// TestS45SimilarCookieNameIsIgnored: only the exact name is the session cookie.
func TestS45SimilarCookieNameIsIgnored(t *testing.T) {
	w := shared(t)
	b := w.browser()
	b.login(t, "/")
	value := b.session()
	for name, line := range map[string]string{
		"lower case": strings.ToLower(sessionCookie) + "=" + value, "upper case": "__HOST-oauth_session=" + value,
		"en quad": "\u2000" + sessionCookie + "=" + value, "next line": "\u0085" + sessionCookie + "=" + value,
		"no-break space": "\u00a0" + sessionCookie + "=" + value, "nameless": "=" + sessionCookie + "=" + value,
		"space after the name": sessionCookie + " =" + value, "tab after the name": sessionCookie + "\t=" + value,
		"space before the value": sessionCookie + "= " + value, "quoted": sessionCookie + `="` + value + `"`,
		"percent-encoded name": "__Host%2Doauth_session=" + value, "without the prefix": "oauth_session=" + value,
		"other prefix": "__Secure-oauth_session=" + value, "longer": sessionCookie + "2=" + value, "in a value": "a=" + sessionCookie + "=" + value,
		"comma for semicolon": "a=b, " + sessionCookie + "=" + value, "NUL for space": "a=b;\x00" + sessionCookie + "=" + value,
	} {
		t.Run(name, func(t *testing.T) {
			var resp *rawAnswer
			reached := w.appRequests(func() { resp = w.rawGet(t, "/x", append([]string{"Cookie: " + line}, scriptHeaders...)...) })
			if len(reached) != 0 || resp.Status != http.StatusUnauthorized && resp.Status != http.StatusBadRequest {
				t.Errorf("got %d, and the app got %d requests; want 401 or 400, and none", resp.Status, len(reached))
			}
		})
	}
	// In RFC 6265 $Version is an ordinary cookie, and the cookie after it is valid.
	t.Run("$Version", func(t *testing.T) {
		reached := w.appRequests(func() {
			w.rawGet(t, "/x", append([]string{"Cookie: $Version=1; " + sessionCookie + "=" + value}, scriptHeaders...)...)
		})
		if len(reached) != 1 || !slices.Equal(reached[0].Values("Cookie"), []string{"$Version=1"}) {
			t.Errorf("the app got %v, want one request with the cookie $Version=1", reached)
		}
	})
}

// TestS46AppReceivesOnlyItsOwnCookies: the app receives its cookies byte for byte, without
// the module's cookies.
func TestS46AppReceivesOnlyItsOwnCookies(t *testing.T) {
	w := shared(t)
	b := w.browser()
	b.login(t, "/")
	// A finished login has no cookie left. The second cookie is that of a login in another
	// tab.
	own, attempt := sessionCookie+"="+b.session(), loginCookie+"AAAAAAAAAAAA="+strings.Repeat("A", 120)
	for _, tc := range []struct {
		name  string
		lines []string
		want  []string
	}{
		{"among others", []string{"a=1; " + own + `; b="x y"; ` + attempt + "; c=%3D"}, []string{`a=1; b="x y"; c=%3D`}},
		{"first", []string{own + "; a=1"}, []string{"a=1"}},
		{"last", []string{"a=1; " + own}, []string{"a=1"}},
		{"alone", []string{own}, nil},
		{"only the module's", []string{own + "; " + attempt}, nil},
		{"two lines", []string{"a=1; " + own, attempt + "; b=2"}, []string{"a=1", "b=2"}},
		{"two lines, one only the module's", []string{"a=1", own + "; " + attempt}, []string{"a=1"}},
		{"twice", []string{sessionCookie + "=garbage; a=1; " + own}, []string{"a=1"}},
		{"twice the same", []string{own + "; a=1; " + own}, []string{"a=1"}},
		{"odd spacing", []string{"a=1;b=2;  c = 3 ;" + own + ";d"}, []string{"a=1;b=2;  c = 3 ;d"}},
		{"without a value", []string{own + "; " + sessionCookie + "; a=1"}, []string{"a=1"}},
		{"no space", []string{own + ";" + attempt + ";a=1"}, []string{"a=1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, path := range []string{"/x", "/static/x"} {
				var lines []string
				for _, line := range tc.lines {
					lines = append(lines, "Cookie: "+line)
				}
				reached := w.appRequests(func() { w.rawGet(t, path, append(lines, scriptHeaders...)...) })
				if len(reached) != 1 || !slices.Equal(reached[0].Values("Cookie"), tc.want) {
					t.Errorf("%s: the app got %v, want cookies %q", path, reached, tc.want)
				}
			}
		})
	}
	t.Run("unknown session on an optional page", func(t *testing.T) {
		reached := w.appRequests(func() {
			w.rawGet(t, "/static/x", append([]string{"Cookie: a=1; " + sessionCookie + "=" + strings.Repeat("A", 43) + "; " + attempt}, scriptHeaders...)...)
		})
		if len(reached) != 1 || !slices.Equal(reached[0].Values("Cookie"), []string{"a=1"}) {
			t.Errorf("the app got %v, want one request with the cookie a=1", reached)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		b2 := w.browser2()
		u, err := url.Parse(w.site)
		if err != nil {
			t.Fatal(err)
		}
		b2.Jar.Update(u, []string{own + "; Secure; Path=/", attempt + "; Secure; Path=/", "a=1; Path=/"})
		reached := w.appRequests(func() { b2.xhr(t, http.MethodGet, "/x") })
		if len(reached) != 1 || !slices.Equal(reached[0].Values("Cookie"), []string{"a=1"}) {
			t.Errorf("the app got %v, want one request with the cookie a=1", reached)
		}
	})
}
