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

// ownToken demands that a request brought one Authorization line to the app, with
// an access token of ours, and nothing that the client had written as EVIL.
func (w *world) ownToken(t testing.TB, r echo.Request) {
	t.Helper()
	w.nothingEvil(t, r)
	if r.Bearer() == "" || !strings.HasPrefix(r.Bearer(), "AT_") {
		t.Errorf("%s brought no token of ours: %q", r.Line, r.Headers)
	}
}

// nothingEvil demands that no header, whatever its name, and no trailer says so.
func (w *world) nothingEvil(t testing.TB, r echo.Request) {
	t.Helper()
	for _, h := range append(slices.Clone(r.Headers), r.Trailers...) {
		if strings.Contains(h[1], "EVIL") {
			t.Errorf("%s brought %q", r.Line, h)
		}
	}
}

// cookieLine is the browser's session for a raw request.
func (b *browser) cookieLine() string { return "Cookie: " + sessionCookie + "=" + b.session() }

// loggedIn returns a browser of the world with a session.
func (w *world) loggedIn(t testing.TB) *browser {
	t.Helper()
	b := w.browser()
	b.login(t, "/")
	return b
}

// TestS62ClientAuthorization: what a client writes into Authorization reaches
// nobody, and is no login.
func TestS62ClientAuthorization(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for name, lines := range map[string][]string{
		"none": nil, "Bearer": {"Authorization: Bearer EVIL"}, "Basic": {"Authorization: Basic EVIL"}, "two": {"Authorization: Bearer EVIL", "Authorization: Basic EVIL"},
		"lower case": {"authorization: Bearer EVIL"}, "empty": {"Authorization:"}, "list": {"Authorization: Bearer EVIL, Basic EVIL"},
		"nominated": {"Authorization: Bearer EVIL", "Connection: keep-alive, Authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			// An open page gets the token of a session, too: optional says who may
			// come without one.
			for _, path := range []string{"/x", "/static/x"} {
				reached := w.during(func() { w.rawGet(t, path, slices.Concat(lines, script, []string{b.cookieLine()})...) })
				if len(reached) != 1 {
					t.Fatalf("%s: %d requests reached the app", path, len(reached))
				}
				w.ownToken(t, reached[0])
			}
			reached := w.during(func() {
				if resp := w.rawGet(t, "/x", append(slices.Clone(lines), script...)...); resp.Status != http.StatusUnauthorized {
					t.Errorf("without a session: status %d", resp.Status)
				}
			})
			if len(reached) != 0 {
				t.Errorf("without a session the app was reached: %v", reached)
			}
			reached = w.during(func() { w.rawGet(t, "/static/x", append(slices.Clone(lines), script...)...) })
			if len(reached) != 1 || reached[0].Values("Authorization") != nil {
				t.Errorf("an open page without a session: the app got %v", reached)
			}
		})
	}
}

// TestS63NameVariants: our header reaches the app once, whatever a client writes
// beside it, over each protocol. Other names than Authorization are tried where
// the handler is alone, in TestTokenHeaderHasNoOtherSpelling: Caddy's own debug line would
// show a token in them.
func TestS63NameVariants(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	for _, line := range []string{"authorization: EVIL", "AUTHORIZATION: EVIL", "aUTHORIZATION:EVIL", "Authorization:\tEVIL", "Authorization: EVIL\r\nAuthorization: EVIL", "Authorization: EVIL\r\nauthorization: EVIL"} {
		reached := w.during(func() { w.rawGet(t, "/x", line, b.cookieLine()) })
		if len(reached) != 1 {
			t.Fatalf("%q: %d requests reached the app", line, len(reached))
		}
		w.ownToken(t, reached[0])
	}
	for _, line := range []string{"Authorization : EVIL", "Authorization\t: EVIL", " Authorization: EVIL", "Authorization\x00: EVIL", "X: y\r\n Authorization: EVIL", ": EVIL", "Authorization\xa0: EVIL"} {
		reached := w.during(func() {
			// A folded line is one value, and then harmless.
			if resp := w.rawGet(t, "/x", line, b.cookieLine()); resp.Status != http.StatusBadRequest && !strings.HasPrefix(line, "X: y") {
				t.Errorf("%q: status %d", line, resp.Status)
			}
		})
		for _, r := range reached {
			if r.Bearer() == "" || !strings.HasPrefix(r.Bearer(), "AT_") {
				t.Errorf("%q: the app got %q", line, r.Headers)
			}
		}
	}
	for name, browser := range map[string]*browser{"HTTP/2": w.browser2(), "HTTP/3": w.browser3(t)} {
		t.Run(name, func(t *testing.T) {
			browser.Jar = b.Jar
			reached := w.during(func() {
				browser.send(t, http.MethodGet, "/x", "", "Authorization: EVIL", "AUTHORIZATION: EVIL")
			})
			if len(reached) != 1 {
				t.Fatalf("%d requests reached the app", len(reached))
			}
			w.ownToken(t, reached[0])
		})
	}
}

// TestS66Smuggling: whatever is in doubt about where a request ends is refused,
// or reaches the app as one plain request, with our headers alone.
func TestS66Smuggling(t *testing.T) {
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
		for _, who := range []string{"session", "nobody"} {
			t.Run(name+", "+who, func(t *testing.T) {
				path, cookie := "/static/x", "" // open, so that nothing else keeps it back
				if who == "session" {
					path, cookie = "/x", b.cookieLine()+"\r\n"
				}
				var resp *rawAnswer
				reached := w.during(func() {
					resp = w.raw(t, "POST "+path+" HTTP/1.1\r\nHost: "+w.host+"\r\n"+cookie+"Connection: close\r\n"+tt.lines+"\r\n"+tt.body)
				})
				// 502: it was refused in the middle of its body.
				refused := resp.Status == http.StatusBadRequest || resp.Status == http.StatusNotImplemented || resp.Status == http.StatusBadGateway
				if len(reached) > 1 || len(reached) == 0 && !refused {
					t.Errorf("status %d, and %d requests reached the app: %v", resp.Status, len(reached), reached)
				}
				for _, r := range reached {
					if r.Malformed != "" || !strings.HasPrefix(r.Line, "POST "+path+" ") {
						t.Errorf("the app got %+v", r)
					}
					w.nothingEvil(t, r)
				}
			})
		}
	}
}

// TestS67SpoofedIdentity: on an open page a header that we, or the
// configuration, make of the user is ours or nothing. What an app may take for
// one of them, such as X_User, Caddy drops itself.
func TestS67SpoofedIdentity(t *testing.T) {
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
				reached := w.during(func() { w.raw(t, w.request(method+" /static/x", lines...)) })
				if len(reached) != 1 {
					t.Fatalf("%d requests reached the app", len(reached))
				}
				w.nothingEvil(t, reached[0])
				if reached[0].Values("Authorization") != nil {
					t.Errorf("the app got %q", reached[0].Headers)
				}
			})
		}
	}
	b := w.loggedIn(t)
	reached := w.during(func() { w.rawGet(t, "/x", append(slices.Clone(spoofed), b.cookieLine())...) })
	if len(reached) != 1 || len(reached[0].Values("X-User")) != 1 || reached[0].Values("X-User")[0] == "" {
		t.Fatalf("with a session the app got %v", reached)
	}
	w.ownToken(t, reached[0])
}

// TestS69TokenElsewhere: a token in the query or in a form is the app's business
// (RFC 6750, sections 2.2 and 2.3): it passes unchanged, and is no login. The
// access log has URLs as Caddy writes them; a filter for it is Caddy's.
func TestS69TokenElsewhere(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	form := "access_token=MINE&a=b"
	reached := w.during(func() {
		b.send(t, http.MethodGet, "/x?access_token=MINE&a=%20b", "")
		b.send(t, http.MethodPost, "/form", form, "Content-Type: application/x-www-form-urlencoded")
	})
	if len(reached) != 2 || reached[0].Line != "GET /x?access_token=MINE&a=%20b HTTP/1.1" || reached[1].BodyLength != int64(len(form)) {
		t.Fatalf("the app got %v", reached)
	}
	for _, r := range reached {
		w.ownToken(t, r)
	}
	reached = w.during(func() {
		w.refused(t, w.browser().send(t, http.MethodGet, "/x?access_token=MINE", "", script...))
		w.refused(t, w.browser().send(t, http.MethodPost, "/x", "access_token=MINE", "Content-Type: application/x-www-form-urlencoded"))
	})
	if len(reached) != 0 {
		t.Errorf("without a session the app got %v", reached)
	}
}

// TestCookiesTheAppSets: no answer of the app sets a cookie of ours.
func TestCookiesTheAppSets(t *testing.T) {
	w := shared(t)
	b := w.loggedIn(t)
	q := url.Values{"name": {sessionCookie, loginCookie + "abc", "=" + sessionCookie, "other", " " + sessionCookie + " "}}
	want := []string{"app=1; Path=/", "other=planted; Path=/; Secure"}
	before := b.session()
	for name, browser := range map[string]*browser{"HTTP/1.1": w.browser(), "HTTP/2": w.browser2(), "HTTP/3": w.browser3(t)} {
		browser.Jar = b.Jar
		resp := browser.send(t, http.MethodGet, "/u/setcookie?"+q.Encode(), "")
		if !slices.Equal(resp.Header.Values("Set-Cookie"), want) || resp.Status != http.StatusOK {
			t.Errorf("%s: %v sets %q", name, resp, resp.Header.Values("Set-Cookie"))
		}
		if b.session() != before {
			t.Errorf("%s: the browser's session is another one", name)
		}
	}
	b.works(t)
}
