package security

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// checkOwnToken checks that the app received one Authorization header with an access token
// of the authorization server, and no text EVIL from the client.
func (w *world) checkOwnToken(t testing.TB, r echo.Request) {
	t.Helper()
	w.checkNoEvilHeader(t, r)
	if r.Bearer() == "" || !strings.HasPrefix(r.Bearer(), "AT_") {
		t.Errorf("%s has no access token of the authorization server: %q", r.Line, r.Headers)
	}
}

// checkNoEvilHeader checks that no header and no trailer contains EVIL.
func (w *world) checkNoEvilHeader(t testing.TB, r echo.Request) {
	t.Helper()
	for _, h := range append(slices.Clone(r.Headers), r.Trailers...) {
		if strings.Contains(h[1], "EVIL") {
			t.Errorf("%s has the client's header %q", r.Line, h)
		}
	}
}

// cookieLine returns the session cookie as a header line for a raw request.
func (b *browser) cookieLine() string { return "Cookie: " + sessionCookie + "=" + b.session() }

// loggedIn returns a browser with a session.
func (w *world) loggedIn(t testing.TB) *browser {
	t.Helper()
	b := w.browser()
	b.login(t, "/")
	return b
}

// TestS62ClientAuthorizationIsReplaced: the client's Authorization header never reaches
// the app and does not log anyone in.
func TestS62ClientAuthorizationIsReplaced(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for name, lines := range map[string][]string{
		"none": nil, "Bearer": {"Authorization: Bearer EVIL"}, "Basic": {"Authorization: Basic EVIL"}, "two": {"Authorization: Bearer EVIL", "Authorization: Basic EVIL"},
		"lower case": {"authorization: Bearer EVIL"}, "empty": {"Authorization:"}, "list": {"Authorization: Bearer EVIL, Basic EVIL"},
		"nominated": {"Authorization: Bearer EVIL", "Connection: keep-alive, Authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			// An optional page gets the token of a session, too. The option only admits
			// requests without one.
			for _, path := range []string{"/x", "/static/x"} {
				reached := w.appRequests(func() { w.rawGet(t, path, slices.Concat(lines, scriptHeaders, []string{b.cookieLine()})...) })
				if len(reached) != 1 {
					t.Fatalf("%s: the app got %d requests, want 1", path, len(reached))
				}
				w.checkOwnToken(t, reached[0])
			}
			reached := w.appRequests(func() {
				if resp := w.rawGet(t, "/x", append(slices.Clone(lines), scriptHeaders...)...); resp.Status != http.StatusUnauthorized {
					t.Errorf("without a session: got status %d, want 401", resp.Status)
				}
			})
			if len(reached) != 0 {
				t.Errorf("without a session: the app got %v, want no request", reached)
			}
			reached = w.appRequests(func() { w.rawGet(t, "/static/x", append(slices.Clone(lines), scriptHeaders...)...) })
			if len(reached) != 1 || reached[0].Values("Authorization") != nil {
				t.Errorf("optional page without a session: the app got %v, want one request without Authorization", reached)
			}
		})
	}
}

// TestS63TokenHeaderIsUnique: the app receives one Authorization header in any spelling
// the client tries, over each protocol. The handler package tests header names other than
// Authorization, because Caddy's debug log would show a token in them.
func TestS63TokenHeaderIsUnique(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for _, line := range []string{"authorization: EVIL", "AUTHORIZATION: EVIL", "aUTHORIZATION:EVIL", "Authorization:\tEVIL", "Authorization: EVIL\r\nAuthorization: EVIL", "Authorization: EVIL\r\nauthorization: EVIL"} {
		reached := w.appRequests(func() { w.rawGet(t, "/x", line, b.cookieLine()) })
		if len(reached) != 1 {
			t.Fatalf("%q: the app got %d requests, want 1", line, len(reached))
		}
		w.checkOwnToken(t, reached[0])
	}
	for _, line := range []string{"Authorization : EVIL", "Authorization\t: EVIL", " Authorization: EVIL", "Authorization\x00: EVIL", "X: y\r\n Authorization: EVIL", ": EVIL", "Authorization\xa0: EVIL"} {
		reached := w.appRequests(func() {
			// A folded line becomes one harmless value.
			if resp := w.rawGet(t, "/x", line, b.cookieLine()); resp.Status != http.StatusBadRequest && !strings.HasPrefix(line, "X: y") {
				t.Errorf("%q: got status %d, want 400", line, resp.Status)
			}
		})
		for _, r := range reached {
			if r.Bearer() == "" || !strings.HasPrefix(r.Bearer(), "AT_") {
				t.Errorf("%q: the app got headers %q", line, r.Headers)
			}
		}
	}
	for name, browser := range map[string]*browser{"HTTP/2": w.browser2(), "HTTP/3": w.browser3(t)} {
		t.Run(name, func(t *testing.T) {
			browser.Jar = b.Jar
			reached := w.appRequests(func() {
				browser.send(t, http.MethodGet, "/x", "", "Authorization: EVIL", "AUTHORIZATION: EVIL")
			})
			if len(reached) != 1 {
				t.Fatalf("the app got %d requests, want 1", len(reached))
			}
			w.checkOwnToken(t, reached[0])
		})
	}
}

// TestS66SmuggledRequestIsNotRelayed: a request with an ambiguous end is refused, or
// reaches the app as one plain request without injected headers.
func TestS66SmuggledRequestIsNotRelayed(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	const inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: EVIL\r\n\r\n"
	for name, tt := range map[string]struct{ lines, body string }{
		"trailers":                  {"Transfer-Encoding: chunked\r\nTrailer: Authorization, X-User\r\n", "1\r\nx\r\n0\r\nAuthorization: Bearer EVIL\r\nX-User: EVIL\r\n\r\n"},
		"trailers, not announced":   {"Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\nAuthorization: Bearer EVIL\r\nX-User: EVIL\r\nCookie: EVIL\r\n\r\n"},
		"chunked and length":        {"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n" + inner},
		"length and chunked":        {fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", 5+len(inner)), "0\r\n\r\n" + inner},
		"xchunked":                  {"Transfer-Encoding: xchunked\r\n", "0\r\n\r\n" + inner},
		"chunked twice":             {"Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n" + inner},
		"two codings":               {"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + inner},
		"identity":                  {"Transfer-Encoding: identity\r\nContent-Length: 1\r\n", "x" + inner},
		"space before colon":        {"Transfer-Encoding : chunked\r\nContent-Length: 1\r\n", "x" + inner},
		"vertical tab":              {"Transfer-Encoding: \x0bchunked\r\nContent-Length: 1\r\n", "x" + inner},
		"bare line feeds in chunks": {"Transfer-Encoding: chunked\r\n", "1\nx\n0\n\n" + inner},
		"bare line feeds in head":   {"X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + inner},
		"carriage return in head":   {"X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n" + inner},
		"chunk extension":           {"Transfer-Encoding: chunked\r\n", "1;a=\"\r\nx\r\n0\r\n\r\n" + inner},
		"signed chunk":              {"Transfer-Encoding: chunked\r\n", "+1\r\nx\r\n0\r\n\r\n" + inner},
		"huge chunk":                {"Transfer-Encoding: chunked\r\n", "10000000000000001\r\nx\r\n0\r\n\r\n" + inner},
		"NUL":                       {"X: a\x00b\r\n", inner},
		"folded":                    {"X: a\r\n Content-Length: 5\r\n", inner},
		"two lengths":               {"Content-Length: 5\r\nContent-Length: 6\r\n", "hello" + inner},
		"list of lengths":           {"Content-Length: 5, 5\r\n", "hello" + inner},
		"signed length":             {"Content-Length: +5\r\n", "hello" + inner},
		"hexadecimal length":        {"Content-Length: 0x5\r\n", "hello" + inner},
		"two hosts":                 {"Host: evil.test\r\n", ""},
	} {
		for _, client := range []string{"session", "no session"} {
			t.Run(name+", "+client, func(t *testing.T) {
				path, cookie := "/static/x", "" // an optional page, so that only the parser can refuse the request
				if client == "session" {
					path, cookie = "/x", b.cookieLine()+"\r\n"
				}
				var resp *rawAnswer
				reached := w.appRequests(func() {
					resp = w.raw(t, "POST "+path+" HTTP/1.1\r\nHost: "+w.host+"\r\n"+cookie+"Connection: close\r\n"+tt.lines+"\r\n"+tt.body)
				})
				// 502: the body was refused while it was relayed.
				refused := resp.Status == http.StatusBadRequest || resp.Status == http.StatusNotImplemented || resp.Status == http.StatusBadGateway
				if len(reached) > 1 || len(reached) == 0 && !refused {
					t.Errorf("got status %d, and the app got %d requests: %v", resp.Status, len(reached), reached)
				}
				for _, r := range reached {
					if r.Malformed != "" || !strings.HasPrefix(r.Line, "POST "+path+" ") {
						t.Errorf("the app got %+v, want one POST", r)
					}
					w.checkNoEvilHeader(t, r)
				}
			})
		}
	}
}

// TestS67SpoofedIdentityIsRemoved: on an optional page without a session, the app receives
// no identity header of the client. Caddy itself drops similar names such as X_User.
func TestS67SpoofedIdentityIsRemoved(t *testing.T) {
	w := shared(t)
	spoofed := []string{"Authorization: Bearer EVIL", "X-User: EVIL", "x-email: EVIL", "X-EMAIL: EVIL", "X_User: EVIL", "X.Email: EVIL", "X-Email_: EVIL"}
	for name, cookie := range map[string]string{
		"no cookie": "", "garbage": "Cookie: " + sessionCookie + "=EVIL", "unknown session": "Cookie: " + sessionCookie + "=" + strings.Repeat("A", 43),
		"two": "Cookie: " + sessionCookie + "=EVIL; " + sessionCookie + "=" + strings.Repeat("A", 43),
	} {
		for _, method := range []string{"GET", "OPTIONS", "POST", "HEAD"} {
			t.Run(method+", "+name, func(t *testing.T) {
				lines := slices.Clone(spoofed)
				if cookie != "" {
					lines = append(lines, cookie)
				}
				reached := w.appRequests(func() { w.raw(t, w.request(method+" /static/x", lines...)) })
				if len(reached) != 1 {
					t.Fatalf("the app got %d requests, want 1", len(reached))
				}
				w.checkNoEvilHeader(t, reached[0])
				if reached[0].Values("Authorization") != nil {
					t.Errorf("the app got headers %q, want no Authorization", reached[0].Headers)
				}
			})
		}
	}
	b := w.loggedIn(t)
	reached := w.appRequests(func() { w.rawGet(t, "/x", append(slices.Clone(spoofed), b.cookieLine())...) })
	if len(reached) != 1 || len(reached[0].Values("X-User")) != 1 || reached[0].Values("X-User")[0] == "" {
		t.Fatalf("with a session: the app got %v, want one request with X-User", reached)
	}
	w.checkOwnToken(t, reached[0])
}

// TestS69TokenInQueryOrFormIsNoLogin: a token in the query or in a form (RFC 6750,
// sections 2.2 and 2.3) passes unchanged to the app and is no login. Caddy's access log
// shows URLs; an operator can filter them there.
func TestS69TokenInQueryOrFormIsNoLogin(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	form := "access_token=MINE&a=b"
	reached := w.appRequests(func() {
		b.send(t, http.MethodGet, "/x?access_token=MINE&a=%20b", "")
		b.send(t, http.MethodPost, "/form", form, "Content-Type: application/x-www-form-urlencoded")
	})
	if len(reached) != 2 || reached[0].Line != "GET /x?access_token=MINE&a=%20b HTTP/1.1" || reached[1].BodyLength != int64(len(form)) {
		t.Fatalf("the app got %v, want two unchanged requests", reached)
	}
	for _, r := range reached {
		w.checkOwnToken(t, r)
	}
	reached = w.appRequests(func() {
		w.checkRefused(t, w.browser().send(t, http.MethodGet, "/x?access_token=MINE", "", scriptHeaders...))
		w.checkRefused(t, w.browser().send(t, http.MethodPost, "/x", "access_token=MINE", "Content-Type: application/x-www-form-urlencoded"))
	})
	if len(reached) != 0 {
		t.Errorf("without a session: the app got %v, want no request", reached)
	}
}

// TestAppCannotSetModuleCookies: an answer of the app cannot set a cookie with a name of
// the module's.
func TestAppCannotSetModuleCookies(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	q := url.Values{"name": {sessionCookie, loginCookie + "abc", "=" + sessionCookie, "other", " " + sessionCookie + " "}}
	want := []string{"app=1; Path=/", "other=planted; Path=/; Secure"}
	before := b.session()
	for name, browser := range map[string]*browser{"HTTP/1.1": w.browser(), "HTTP/2": w.browser2(), "HTTP/3": w.browser3(t)} {
		browser.Jar = b.Jar
		resp := browser.send(t, http.MethodGet, "/u/setcookie?"+q.Encode(), "")
		if !slices.Equal(resp.Header.Values("Set-Cookie"), want) || resp.Status != http.StatusOK {
			t.Errorf("%s: got %v with cookies %q, want %q", name, resp, resp.Header.Values("Set-Cookie"), want)
		}
		if b.session() != before {
			t.Errorf("%s: the app changed the session cookie", name)
		}
	}
	b.checkSession(t)
}
