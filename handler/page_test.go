package handler

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// ownAnswers returns all kinds of the Handler's own answers, by request.
func ownAnswers(t *testing.T, g *rig) []*answer {
	t.Helper()
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	b := g.browser()
	callback := b.approve(b.start("/"))
	answers := []*answer{
		g.get("/", navigation...), g.get("/", script...), g.get("/oauth2/login", navigation...),
		b.send(g.request("GET", callback, navigation...), true), g.get(callback, navigation...),
		g.get("/oauth2/callback", navigation...), g.get("/oauth2/callback?state=x&error=x", script...),
		g.get("/oauth2/logout", navigation...), g.post("/oauth2/logout", formPost...), g.post("/oauth2/logout", script...),
		g.post("/oauth2/logout", "Sec-Fetch-Site: cross-site"), g.get("/oauth2/logout/callback", navigation...),
		g.get("/oauth2/session", script...), g.get("/oauth2/session", append(slices.Clone(script), cookie)...),
		g.get("/oauth2/unknown", navigation...), g.post("/oauth2/session", script...),
		g.post("/", cookie, "Sec-Fetch-Site: cross-site"), g.do(g.request("TRACE", "/", cookie)),
	}
	unread := "Cookie: " + sessionCookie + "=" + g.session("")
	g.store.down.Store(true)
	answers = append(answers, g.get("/", append(slices.Clone(navigation), unread)...), g.get("/", append(slices.Clone(script), unread)...))
	g.store.down.Store(false)
	return answers
}

func TestOwnAnswersAreNotStoredFramedOrReferred(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, a := range ownAnswers(t, g) {
		if a.relayed != 0 {
			t.Errorf("%s: got a call of the app, want none", a.uri)
		}
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "Vary": "*", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s, status %d: %s is %q, want %q", a.uri, a.status, name, got, want)
			}
		}
		if got := a.header.Get("Referrer-Policy"); got != "no-referrer" && !(got == "origin" && strings.Contains(a.body, "<form")) {
			t.Errorf("%s, status %d: got Referrer-Policy %q, want no-referrer, or origin with a form", a.uri, a.status, got)
		}
		for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, directive) {
				t.Errorf("%s, status %d: got Content-Security-Policy %q, want one that blocks everything else", a.uri, a.status, csp)
			}
		}
		for _, goText := range []string{"redeeming", "dial tcp", errStoreDown.Error(), "goroutine", "127.0.0.1", "the state parameter"} {
			if strings.Contains(a.body, goText) {
				t.Errorf("%s: got %q on the page, want no text of Go", a.uri, goText)
			}
		}
	}
	// The app's answer is unchanged, apart from the directive for shared caches.
	a := g.get("/", append(slices.Clone(navigation), "Cookie: "+sessionCookie+"="+g.session(""))...)
	delete(a.header, "Content-Type") // the recorder's
	delete(a.header, "Cache-Control")
	if len(a.header) != 0 {
		t.Errorf("got header %v on the app's answer, want none of the Handler's", a.header)
	}
}

// TestContentSecurityPolicyAllowsTheStyle by its hash. Nothing else in a page needs
// permission, and no other answer permits a script: only the page of handOver has one.
func TestContentSecurityPolicyAllowsTheStyle(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.Cookie = Cookie{SameSite: "strict"} })
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	pages := 0
	for _, a := range ownAnswers(t, g) {
		if csp := a.header.Get("Content-Security-Policy"); strings.Contains(csp, "script-src") {
			t.Errorf("%s, status %d: got Content-Security-Policy %q, want no permission for scripts", a.uri, a.status, csp)
		}
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			continue
		}
		pages++
		found := style.FindAllStringSubmatch(a.body, -1)
		if len(found) != 1 {
			t.Fatalf("%s: got %d styles, want 1", a.uri, len(found))
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(a.header.Get("Content-Security-Policy"), want) {
			t.Errorf("%s: the policy %q has no %s", a.uri, a.header.Get("Content-Security-Policy"), want)
		}
		for _, needless := range []string{"<script", "style=", " src=", "onload", "javascript:", "http://", "@import"} {
			if strings.Contains(a.body, needless) {
				t.Errorf("%s: got %q on the page, want nothing that needs another permission", a.uri, needless)
			}
		}
	}
	if pages < 6 {
		t.Errorf("got %d pages, want more", pages)
	}
}

// TestPagesEscapeTextFromOutside or do not show it. Such text forges no log line
// either.
func TestPagesEscapeTextFromOutside(t *testing.T) {
	g := newRig(t, plainOAuth)
	const hostile = "\"><script>alert(1)</script>\n{\"level\":\"error\",\"msg\":\"forged\"}\x1b[31m\u2028{env.HOME}"
	g.as.Set(func(k *fakeas.Knobs) {
		k.Callback = fakeas.Edit{Set: map[string]any{"error": hostile, "error_description": hostile + strings.Repeat("x", 10_000)}, Omit: []string{"code"}}
	})
	pages := []*answer{
		g.browser().open("/wanted?<script>alert(1)</script>"),
		g.browser().open(`/'"><script>alert(1)</script>`),
		g.get("/oauth2/callback?error=<script>alert(1)</script>&error_description=%22><img+src=x>&state=x", navigation...),
		g.get("/oauth2/login?prompt=<script>&return_to=%22><script>", navigation...),
		g.get("/oauth2/<script>alert(1)</script>", navigation...),
	}
	for _, a := range pages {
		if a.status < 400 || strings.Contains(a.body, "<script") || strings.Contains(a.body, "<img") || strings.Contains(a.body, "alert(1)</") || strings.Contains(a.body, "forged") {
			t.Errorf("%s: got status %d: %s, want the text escaped", a.uri, a.status, a.body)
		}
	}
	lines := g.log.lines("login refused by the authorization server")
	if len(lines) != 2 || len(lines[0]) > 1000 || strings.Contains(g.log.text(), "\x1b") || len(g.log.lines(`"msg":"forged"`)) != 0 {
		t.Errorf("got log lines %q, want one", lines)
	}
}

// TestTemporaryErrorPageReloads, and other clients get Retry-After.
func TestTemporaryErrorPageReloads(t *testing.T) {
	g := newRig(t, plainOAuth)
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	g.store.down.Store(true)
	page := g.get("/wanted", append(slices.Clone(navigation), cookie)...)
	if page.status != 503 || page.header.Get("Retry-After") != "1" || !strings.Contains(page.body, `<meta http-equiv="refresh" content="1">`) || page.header["Set-Cookie"] != nil {
		t.Errorf("got status %d, want 503, %v: %s", page.status, page.header, page.body)
	}
	a := g.get("/wanted", append(slices.Clone(script), cookie)...)
	if p := a.problem(t); a.status != 503 || p.Code != "temporarily_unavailable" || p.LoginURL != "" || a.header.Get("Retry-After") != "1" {
		t.Errorf("got status %d, want 503: %+v", a.status, p)
	}
	if lines := g.log.lines("request failed"); len(lines) != 1 {
		t.Errorf("got log lines %q, want one", lines)
	}
}

// TestServerFailureIsShownWithoutDetails after the access token has expired.
func TestServerFailureIsShownWithoutDetails(t *testing.T) {
	for name, tt := range map[string]struct {
		fault  fakeas.Fault
		status int
		code   string
	}{
		"outage":  {fakeas.Unavailable(), 503, "temporarily_unavailable"},
		"client":  {fakeas.OAuthError("invalid_client"), 502, "misconfigured"},
		"garbage": {fakeas.Answer(200, "text/html", "<html>"), 503, "temporarily_unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth)
				b := g.loggedIn()
				as.Fail(tt.fault.For(fakeas.GrantRefresh).Repeat(-1))
				time.Sleep(time.Hour)
				a := b.fetch("GET", "/api")
				if p := a.problem(t); a.status != tt.status || p.Code != tt.code || a.header.Get("Retry-After") == "" {
					t.Errorf("got status %d, want %d: %+v", a.status, tt.status, p)
				}
				page := b.open("/wanted")
				if page.status != tt.status || !strings.Contains(page.body, tt.code) || page.relayed != 0 {
					t.Errorf("got status %d, want %d: %s", page.status, tt.status, page.body)
				}
				if b.jar.get(sessionCookie) == nil {
					t.Error("got no session cookie, want it kept")
				}
				as.ClearFaults()
				time.Sleep(5 * time.Minute)
				b.mustReach("/wanted")
				if len(b.hops) != 1 {
					t.Errorf("got hops %q, want no login", b.hops)
				}
			})
		})
	}
}

// TestFailIsCalledForPagesOnly, and never for a URL that contains a code.
func TestFailIsCalledForPagesOnly(t *testing.T) {
	var failed []string
	g := newRig(t, plainOAuth, func(s *setup) {
		s.handler.Fail = func(w http.ResponseWriter, r *http.Request, e *Error) error {
			failed = append(failed, r.URL.Path+" "+e.Code)
			return e
		}
	})
	a := g.get("/oauth2/unknown", navigation...)
	var e *Error
	if !errors.As(a.err, &e) || e.Status != 404 || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("got error %v, want that of Fail", a.err)
	}
	g.get("/oauth2/unknown", script...)
	g.get("/oauth2/callback?code=CODE_x&state=x", navigation...)
	if !slices.Equal(failed, []string{"/oauth2/unknown not_found"}) {
		t.Errorf("got calls of Fail for %q, want pages only", failed)
	}
}

func TestSameErrorIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		r := &http.Request{}
		h := &Handler{Config: Config{RequestID: func(*http.Request) string { return "" }, Logger: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), log, zap.DebugLevel))}}
		for range 120 {
			h.logFailure(r, &Error{Code: "a", Err: errors.New("cause")})
			h.logFailure(r, &Error{Code: "b"})
			time.Sleep(time.Second)
		}
		if a, b := len(log.lines(`"code":"a"`)), len(log.lines(`"code":"b"`)); a != 2 || b != 2 {
			t.Errorf("got %d and %d lines, want one for each cause", a, b)
		}
	})
}

func TestPrintableReplacesControlCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"access_denied": "access_denied", "a\nb\r\x00\x1b[31m": "a?b???[31m", "é": "?", strings.Repeat("x", 300): strings.Repeat("x", 200), "": "",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int{time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2} {
		if got := (&Error{RetryAfter: d}).retryAfterSeconds(); got != want {
			t.Errorf("%v: got %d, want %d", d, got, want)
		}
	}
}
