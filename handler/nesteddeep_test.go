package handler

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// nest returns a Handler of the same login, with changes.
func (g *rig) nest(change func(*Config)) *Handler {
	g.t.Helper()
	config := g.handler.Config
	change(&config)
	h, err := New(config)
	if err != nil {
		g.t.Fatal(err)
	}
	return h
}

// serveNested passes a request through nested Handlers, the first one outside, and stores
// the cookies of the answer.
func (b *browser) serveNested(r *http.Request, handlers ...*Handler) *http.Response {
	b.t.Helper()
	if lines := b.jar.header(false); lines != nil {
		r.Header["Cookie"] = lines
	}
	w := httptest.NewRecorder()
	if err := serveChain(w, r, handlers, b.app.serve); err != nil {
		b.t.Fatal(err)
	}
	b.jar.set(w.Result().Header["Set-Cookie"])
	return w.Result()
}

func serveChain(w http.ResponseWriter, r *http.Request, handlers []*Handler, app func(http.ResponseWriter, *http.Request) error) error {
	if len(handlers) == 0 {
		return app(w, r)
	}
	return handlers[0].ServeHTTP(wrapped{w}, r, NextFunc(func(w http.ResponseWriter, r *http.Request) error {
		return serveChain(w, r, handlers[1:], app)
	}))
}

// nests are Handlers of one login around the innermost one.
func (g *rig) nests(innermost func(*Config)) map[string][]*Handler {
	plain, anonymous := g.nest(func(*Config) {}), g.nest(func(c *Config) { c.Optional = func(*http.Request) bool { return true } })
	beside := g.nest(func(c *Config) { c.Protects, c.MayProtect = below("/nothing/"), below("/nothing/") })
	last := g.nest(innermost)
	return map[string][]*Handler{
		"one around":                 {plain, last},
		"two around":                 {plain, g.nest(func(*Config) {}), last},
		"three around":               {plain, g.nest(func(*Config) {}), g.nest(func(*Config) {}), last},
		"optional around":            {anonymous, g.nest(func(c *Config) { c.Optional = anonymous.Optional }), last},
		"one beside, between":        {plain, beside, g.nest(func(*Config) {}), last},
		"one beside, around the two": {beside, plain, g.nest(func(*Config) {}), last},
	}
}

// TestLogoutEndsTheSessionBehindAnyNumberOfHandlers: the endpoints of the innermost one
// get the session's cookie, and can delete it.
func TestLogoutEndsTheSessionBehindAnyNumberOfHandlers(t *testing.T) {
	g := newRig(t)
	for name, handlers := range g.nests(func(c *Config) { c.PathPrefix = "/area/oauth2" }) {
		t.Run(name, func(t *testing.T) {
			b := g.loggedIn()
			cookie := b.jar.get(sessionCookie).Value
			resp := b.serveNested(g.request(http.MethodGet, "/area/oauth2/session", script...), handlers...)
			if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), `"authenticated":true`) {
				t.Errorf("the session endpoint says %s, want the session", body)
			}
			resp = b.serveNested(g.request(http.MethodPost, "/area/oauth2/logout", formPost...), handlers...)
			if resp.StatusCode != http.StatusSeeOther || b.jar.get(sessionCookie) != nil {
				t.Errorf("logout: got status %d and the session's cookie %v, want 303 and none", resp.StatusCode, b.jar.get(sessionCookie))
			}
			if a := g.get("/", with(cookie, script)...); a.status != http.StatusUnauthorized {
				t.Errorf("after the logout: got status %d, want 401", a.status)
			}
		})
	}
}

// TestLoginBehindAnyNumberOfHandlersCanBeCompleted: the innermost one begins a login
// because the token is too old, and its cookie reaches the browser.
func TestLoginBehindAnyNumberOfHandlersCanBeCompleted(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		for name, handlers := range g.nests(func(c *Config) {
			c.RefreshIfOlder = []AgeLimit{{Match: func(*http.Request) bool { return true }, Age: time.Minute}}
		}) {
			b := g.browser()
			secret, _, err := g.keeper.Create(context.Background(), keeper.Identity{Subject: "alice"}, keeper.Tokens{AccessToken: "AT_" + name, Expires: time.Now().Add(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			b.jar.set([]string{sessionCookie + "=" + secret.Cookie() + "; Path=/; Secure"})
			time.Sleep(2 * time.Minute)
			resp := b.serveNested(g.request(http.MethodGet, "/wanted", navigation...), handlers...)
			if resp.StatusCode != http.StatusFound || len(b.jar.logins()) != 1 {
				t.Errorf("%s: got status %d and %d login cookies, want the beginning of a login", name, resp.StatusCode, len(b.jar.logins()))
				continue
			}
			b.wantAppAt(b.walk(resp.Header.Get("Location"), "cross-site", nil), "/wanted")
			if b.jar.get(sessionCookie).Value == secret.Cookie() {
				t.Errorf("%s: got the former session after the login, want a new one", name)
			}
		}
	})
}

// TestPostedResponseOfAnInnerLoginArrives: the form of the server has no cookies, so only an
// endpoint of the outermost Handler can accept it.
func TestPostedResponseOfAnInnerLoginArrives(t *testing.T) {
	g := newRig(t, func(s *setup) { s.oauth.ResponseMode = oauth.ResponseModeFormPost })
	for name, handlers := range g.nests(func(c *Config) { c.PathPrefix = "/area/oauth2" }) {
		t.Run(name, func(t *testing.T) {
			b := g.loggedIn()
			before := b.jar.get(sessionCookie).Value
			resp := b.serveNested(g.request(http.MethodGet, "/area/oauth2/login?prompt=login&return_to=/wanted", navigation...), handlers...)
			target := resp.Header.Get("Location")
			want := appOrigin + "/oauth2/callback"
			if name == "optional around" {
				want = appOrigin + "/area/oauth2/callback" // the form passes
			}
			if got := sentParams(t, target).Get("redirect_uri"); got != want {
				t.Fatalf("got redirect_uri %s, want %s", got, want)
			}
			if name == "optional around" {
				return
			}
			b.wantAppAt(b.walk(target, "cross-site", nil), "/wanted")
			if b.jar.get(sessionCookie).Value == before {
				t.Error("got the former session after the login, want a new one")
			}
		})
	}
}

// TestPostedResponsePassesAnOptionalHandler to the callback of the inner one.
func TestPostedResponsePassesAnOptionalHandler(t *testing.T) {
	g := newRig(t, func(s *setup) { s.oauth.ResponseMode = oauth.ResponseModeFormPost })
	handlers := g.nests(func(c *Config) { c.PathPrefix = "/area/oauth2" })["optional around"]
	b := g.loggedIn()
	resp := b.serveNested(g.request(http.MethodGet, "/area/oauth2/login?prompt=login", navigation...), handlers...)
	form := url.Values{"state": {sentParams(t, resp.Header.Get("Location")).Get("state")}, "code": {"x"}, "iss": {g.as.URL}}.Encode()
	r := g.request(http.MethodPost, "/area/oauth2/callback", navigation...)
	for name, value := range map[string]string{"Origin": "null", "Content-Type": urlencoded, "Sec-Fetch-Site": "cross-site"} {
		r.Header.Set(name, value)
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(form)), int64(len(form))
	w := httptest.NewRecorder()
	if err := serveChain(w, r, handlers, g.app.serve); err != nil || w.Code != http.StatusOK || !postNow.MatchString(w.Body.String()) {
		t.Errorf("got status %d, error %v, want the page that hands the form over: %.300s", w.Code, err, w.Body)
	}
}

// TestCodeOfAnInnerLoginStaysOutOfPagesAndLogs: with a strict cookie, the callback has no
// session. A Handler around the inner one would answer it as an ordinary page, whose URL is
// logged.
func TestCodeOfAnInnerLoginStaysOutOfPagesAndLogs(t *testing.T) {
	for _, sameSite := range []string{"strict", "lax"} {
		kept := 0
		g := newRig(t, func(s *setup) {
			s.handler.Cookie.SameSite = sameSite
			s.handler.KeepOutOfLog = func(*http.Request) { kept++ }
		})
		for name, handlers := range g.nests(func(c *Config) { c.PathPrefix = "/area/oauth2" }) {
			t.Run(sameSite+", "+name, func(t *testing.T) {
				b := g.loggedIn()
				resp := b.serveNested(g.request(http.MethodGet, "/area/oauth2/login?prompt=login", navigation...), handlers...)
				sent := sentParams(t, resp.Header.Get("Location"))
				path, _ := strings.CutPrefix(sent.Get("redirect_uri"), appOrigin)
				query := url.Values{"state": {sent.Get("state")}, "code": {"CODE_of_this_login"}, "iss": {"https://other.test"}}
				r := g.request(http.MethodGet, path+"?"+query.Encode(), navigation...)
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.Header["Cookie"] = b.jar.header(true)
				w := httptest.NewRecorder()
				kept = 0
				if err := serveChain(w, r, handlers, g.app.serve); err != nil {
					t.Fatal(err)
				}
				if kept == 0 || strings.Contains(w.Body.String(), "CODE_of_this_login") {
					t.Errorf("got status %d, kept out of the log: %v: %.2000s", w.Code, kept > 0, w.Body)
				}
			})
		}
	}
}
