package handler

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// wantNewLogin fails the test unless the browser was sent to a new login.
func wantNewLogin(t *testing.T, g *rig, a *answer) {
	t.Helper()
	if a.status != http.StatusFound || !strings.HasPrefix(a.location(), g.as.URL+"/authorize?") {
		t.Errorf("%s: status %d, Location %q: %.200s, want a new login", a.uri, a.status, a.location(), a.body)
	}
}

// wantLoginLink fails the test unless a page links to a new login.
func wantLoginLink(t *testing.T, a *answer, status int, code string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, code) || !strings.Contains(a.body, `href="/oauth2/login?return_to=`) {
		t.Errorf("%s: status %d: %s, want %d, %s and a way out", a.uri, a.status, a.body, status, code)
	}
}

func TestReplayedCallbackRedeemsNoCodeTwice(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	callback := b.approve(b.start("/wanted"))
	b.wantAppAt(b.open(callback), "/wanted")
	session := b.jar.get(sessionCookie)
	// The back button, with a session.
	b.wantAppAt(b.open(callback), "/wanted")
	if b.jar.get(sessionCookie) != session {
		t.Error("got another session after the replay, want the same")
	}
	// Without a session, a new login leads there.
	b.jar.cookies = nil
	b.wantAppAt(b.open(callback), "/wanted")
	stats := g.as.Stats()
	if stats.CodeReuses != 0 || stats.Grants[fakeas.GrantCode] != 2 {
		t.Errorf("got %d redeemed codes, %d of them twice, want 2 and 0", stats.Grants[fakeas.GrantCode], stats.CodeReuses)
	}
}

// TestCallbackOfAnotherBrowserLogsNobodyIn: login CSRF. A victim opens the
// attacker's callback without an attempt, with another attempt, or with a session.
func TestCallbackOfAnotherBrowserLogsNobodyIn(t *testing.T) {
	g := newRig(t)
	for name, prepare := range map[string]func(*browser){
		"no attempt":  func(*browser) {},
		"own attempt": func(b *browser) { b.start("/") },
		"session":     func(b *browser) { b.mustReach("/") },
	} {
		t.Run(name, func(t *testing.T) {
			attacker, victim := g.browser(), g.browser()
			callback := attacker.approve(attacker.start("/theirs"))
			prepare(victim)
			before, redeemed := victim.jar.get(sessionCookie), g.as.codesRedeemed()
			a := victim.send(g.request(http.MethodGet, callback, navigation...), true)
			if victim.jar.get(sessionCookie) != before || g.as.codesRedeemed() != redeemed {
				t.Errorf("got status %d, session %v, %d redeemed codes, want the former session and 0", a.status, victim.jar.get(sessionCookie), g.as.codesRedeemed()-redeemed)
			}
			if name == "session" {
				return
			}
			// One login of the victim is begun. The next failure shows a page.
			wantNewLogin(t, g, a)
			again := attackerState(t, callback, a.location())
			wantLoginLink(t, g.get(again, append(navigation, "Cookie: app=1")...), 400, "login_expired")
		})
	}
}

// attackerState returns a callback with the state of a restarted login, as a
// browser without cookies would send it.
func attackerState(t *testing.T, callback, restarted string) string {
	t.Helper()
	u, err := url.Parse(restarted)
	if err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(callback, "?")
	return path + "?code=x&state=" + u.Query().Get("state")
}

func TestBrokenCallbackSendsNoCode(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	at := b.start("/wanted")
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	state := u.Query().Get("state")
	for query, status := range map[string]int{
		"":                             400,
		"?code=x":                      400,
		"?code=x&state=":               400,
		"?code=x&state=made-up":        400,
		"?code=x&state=" + state[1:]:   400,
		"?code=x&state=" + state + "A": 400,
		"?code=x&state=" + state[:20] + "%0a" + state[20:]: 400,
		"?state=" + state:                              400,
		"?state=" + state + "&code=":                   400,
		"?error=access_denied":                         400,
		"?code=a&code=b&state=" + state:                400,
		"?code=a&state=" + state + "&state=":           400,
		"?code=a&state=" + state + "&error=a&error=b":  400,
		"?code=%zz&state=" + state:                     400,
		"?code=a;state=" + state:                       400,
		"?code=x&state=" + strings.Repeat("A", 64<<10): 400,
		"?id_token=x&access_token=AT_x&state=" + state: 400,
	} {
		a := b.send(g.request(http.MethodGet, "/oauth2/callback"+query, navigation...), true)
		if a.status != status {
			t.Errorf("%.20s…%s: status %d, want %d", query, query[max(0, len(query)-20):], a.status, status)
		}
		if status == 400 && a.header["Set-Cookie"] != nil {
			t.Errorf("%.80s: got cookies, want none", query)
		}
	}
	for _, method := range []string{"POST", "HEAD", "OPTIONS", "PUT", "get"} {
		r := g.request(method, "/oauth2/callback?code=x&state="+state, navigation...)
		if a := b.send(r, true); a.status != 405 || a.header.Get("Allow") != "GET" {
			t.Errorf("%s: got status %d, want 405, Allow %q", method, a.status, a.header.Get("Allow"))
		}
	}
	for _, header := range []string{"Sec-Purpose: prefetch", "Sec-Purpose: prefetch;prerender", "Purpose: prefetch"} {
		if a := b.send(g.request(http.MethodGet, b.approve(at), append(navigation, header)...), true); a.status != 400 {
			t.Errorf("%s: got status %d, want 400", header, a.status)
		}
	}
	if n := g.as.codesRedeemed(); n != 0 {
		t.Errorf("got %d codes at the token endpoint, want 0", n)
	}
	b.wantAppAt(b.open(b.approve(at)), "/wanted")
}

// TestTamperedLoginCookieIsRefused for each altered character.
func TestTamperedLoginCookieIsRefused(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	callback := b.approve(b.start("/"))
	good := b.jar.logins()[0]
	for i := range good.Value {
		altered := []byte(good.Value)
		if altered[i] = 'A'; good.Value[i] == 'A' {
			altered[i] = 'B'
		}
		wantNewLogin(t, g, g.get(callback, append(navigation, "Cookie: "+good.Name+"="+string(altered))...))
	}
	// A value that was sealed for another purpose, and a repeated cookie, are
	// refused.
	other := g.browser()
	other.start("/")
	state := strings.TrimPrefix(callback[strings.Index(callback, "state="):], "state=")
	for _, cookie := range []string{
		good.Name + "=" + other.jar.logins()[0].Value,
		good.Name + "=" + g.session(""),
		good.Name + "=" + state,
		sessionCookie + "=" + good.Value,
		good.Name + "=" + good.Value + "; " + good.Name + "=" + good.Value,
		good.Name + "=x; " + good.Name + "=" + good.Value,
	} {
		wantNewLogin(t, g, g.get(callback, append(navigation, "Cookie: "+cookie)...))
	}
	if n := g.as.codesRedeemed(); n != 0 {
		t.Errorf("got %d codes at the token endpoint, want 0", n)
	}
}

func TestCallbackOfAnotherIssuerIsRefused(t *testing.T) {
	g := newRig(t)
	g.as.Set(func(k *fakeas.Knobs) { k.IssParameter = true })
	for name, edit := range map[string]fakeas.Edit{
		"another":         {Set: map[string]any{"iss": "https://idp2.test"}},
		"with a slash":    {Set: map[string]any{"iss": g.as.URL + "/"}},
		"empty":           {Set: map[string]any{"iss": ""}},
		"missing":         {Omit: []string{"iss"}},
		"another's error": {Set: map[string]any{"iss": "https://idp2.test", "error": "access_denied"}, Omit: []string{"code"}},
	} {
		g.as.Set(func(k *fakeas.Knobs) { k.Callback = edit })
		b := g.browser()
		a := b.open("/")
		if a.status < 400 || !strings.Contains(a.body, "login_failed") || b.jar.get(sessionCookie) != nil {
			t.Errorf("%s: got status %d: %s, want login_failed and no session", name, a.status, a.body)
		}
		wantLoginLink(t, a, a.status, "login_failed")
	}
	if n := g.as.codesRedeemed(); n != 0 {
		t.Errorf("got %d codes at the token endpoint, want 0", n)
	}
	g.as.Set(func(k *fakeas.Knobs) { k.Callback = fakeas.Edit{} })
	g.loggedIn()
}

// TestRepeatedIssuerIsABadRequest, like every other repeated parameter.
func TestRepeatedIssuerIsABadRequest(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	callback := b.approve(b.start("/"))
	a := b.open(callback + "&iss=" + url.QueryEscape(g.as.URL) + "&iss=" + url.QueryEscape(g.as.URL))
	if a.status != http.StatusBadRequest || g.as.codesRedeemed() != 0 {
		t.Errorf("got status %d, want 400, %d codes redeemed", a.status, g.as.codesRedeemed())
	}
}

func TestErrorOfTheServerEndsOnAPageWithALoginLink(t *testing.T) {
	for _, tt := range []struct {
		error  string
		logins int // visits to the server until a page is shown
		status int
		code   string
	}{
		{"temporarily_unavailable", 3, 502, "login_failed"},
		{"server_error", 3, 502, "login_failed"},
		{"login_required", 3, 502, "login_failed"},
		{"access_denied", 1, 403, "access_denied"},
		{"invalid_scope", 1, 502, "login_failed"},
		{"<script>alert(1)</script>", 1, 502, "login_failed"},
	} {
		t.Run(tt.error, func(t *testing.T) {
			g := newRig(t)
			g.as.Fail(fakeas.OAuthError(tt.error).At(fakeas.EndpointAuthorize).Repeat(-1))
			b := g.browser()
			a := b.open("/wanted?x=1")
			wantLoginLink(t, a, tt.status, tt.code)
			if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != tt.logins {
				t.Errorf("%d visits to the server, want %d", n, tt.logins)
			}
			if !strings.Contains(a.body, url.QueryEscape("/wanted?x=1")) || strings.Contains(a.body, "as ordered") {
				t.Errorf("got page %s, want the wanted path and no text of the server", a.body)
			}
			g.as.ClearFaults()
			b.mustReach("/wanted?x=1")
		})
	}
}

func TestTemporaryErrorOfTheServerRestartsTheLogin(t *testing.T) {
	g := newRig(t)
	for _, code := range []string{"temporarily_unavailable", "login_required"} {
		g.as.Fail(fakeas.OAuthError(code).At(fakeas.EndpointAuthorize).Repeat(2))
		g.browser().mustReach("/wanted")
	}
	g.as.Set(func(k *fakeas.Knobs) { k.PromptNone = "login_required" })
	b := g.browser()
	b.wantAppAt(b.open("/oauth2/login?prompt=none&return_to=/wanted"), "/wanted")
}

func TestRefusedCodeIsRetriedWithANewLogin(t *testing.T) {
	g := newRig(t)
	g.as.Fail(fakeas.OAuthError("invalid_grant"))
	g.browser().mustReach("/wanted")
	g.as.Fail(fakeas.OAuthError("invalid_grant").Repeat(-1))
	b := g.browser()
	wantLoginLink(t, b.open("/wanted"), 502, "login_failed")
	if n := g.as.codesRedeemed(); n != 4 {
		t.Errorf("got %d redeemed codes, want 4", n)
	}
}

// TestOutageDuringTheCallbackIsRetriedByThePage: the page goes to a new login by
// itself, which succeeds.
func TestOutageDuringTheCallbackIsRetriedByThePage(t *testing.T) {
	for name, fault := range map[string]fakeas.Fault{
		"503":          fakeas.Unavailable(),
		"lost request": fakeas.LoseRequest().Repeat(2),
		"lost answer":  fakeas.LoseAnswer().Repeat(2),
		"no keys":      fakeas.Unavailable().At(fakeas.EndpointJWKS),
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			callback := b.approve(b.start("/wanted"))
			g.as.Fail(fault)
			a := b.open(callback)
			if a.status != 503 || a.header.Get("Retry-After") == "" {
				t.Fatalf("got status %d, want 503: %s", a.status, a.body)
			}
			next := wantReloadToLogin(t, a)
			if name == "no keys" {
				return // the client waits before it asks for keys again
			}
			b.wantAppAt(b.open(next), "/wanted")
		})
	}
}

// TestLostAnswerToACodeRestartsTheLogin: the code may be spent.
func TestLostAnswerToACodeRestartsTheLogin(t *testing.T) {
	for name, fault := range map[string]fakeas.Fault{"request": fakeas.LoseRequest(), "answer": fakeas.LoseAnswer()} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.as.Fail(fault)
			g.browser().mustReach("/wanted")
			if stats := g.as.Stats(); stats.Grants[fakeas.GrantCode] != 2 || stats.CodeReuses != 0 {
				t.Errorf("got %d sent codes, %d of them twice, want 2 and 0", stats.Grants[fakeas.GrantCode], stats.CodeReuses)
			}
		})
	}
}

var goesOn = regexp.MustCompile(`<meta http-equiv="refresh" content="([1-9][0-9]*);url=([^"]*)">`)

// wantReloadToLogin returns the URL to which a page reloads. It fails the test
// unless that is a new login.
func wantReloadToLogin(t *testing.T, a *answer) string {
	t.Helper()
	m := goesOn.FindStringSubmatch(a.body)
	if m == nil || strings.Count(a.body, `http-equiv="refresh"`) != 1 || !strings.HasPrefix(m[2], "/oauth2/login?return_to=") {
		t.Fatalf("%s: got page %s, want one that reloads to a login", a.uri, a.body)
	}
	return html.UnescapeString(m[2])
}

func TestNoLoginBeginsWithoutMetadata(t *testing.T) {
	g := newRig(t)
	g.as.Fail(fakeas.Unavailable().At(fakeas.EndpointDiscovery).Repeat(-1))
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	a := g.get("/", navigation...)
	if a.status != 503 || a.header.Get("Retry-After") == "" || a.header["Set-Cookie"] != nil || strings.Contains(a.body, g.as.URL) {
		t.Errorf("got status %d, want 503: %s", a.status, a.body)
	}
	if a := g.get("/", append(navigation, cookie)...); a.status != 200 {
		t.Errorf("with a session: got status %d, want 200", a.status)
	}
	if a := g.get("/", script...); a.status != 401 {
		t.Errorf("a script: got status %d, want 401", a.status)
	}
}

// TestStaleCallbackIsUnavailableWhileTheStoreIsDown: the session is unknown, so no
// login begins.
func TestStaleCallbackIsUnavailableWhileTheStoreIsDown(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	callback := b.approve(b.start("/wanted"))
	b.send(g.request("GET", callback, navigation...), true) // no request has read the session yet
	g.store.down.Store(true)
	if a := b.send(g.request("GET", callback, navigation...), true); a.status != 503 || a.header["Set-Cookie"] != nil {
		t.Errorf("got status %d, want 503, cookies %q", a.status, a.header["Set-Cookie"])
	}
	g.store.down.Store(false)
	b.wantAppAt(b.open(callback), "/wanted")
}

// TestExpiredAttemptBeginsANewLogin: an attempt is valid for ten minutes. Its state
// still leads to the wanted page.
func TestExpiredAttemptBeginsANewLogin(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.browser()
		callback := b.approve(b.start("/wanted"))
		cookies := b.jar.header(false)
		time.Sleep(loginAttemptLifetime + time.Second)
		if len(b.jar.header(false)) != 0 {
			t.Error("got the attempt's cookie after its Max-Age, want none")
		}
		// Also if the browser keeps the cookie longer than Max-Age.
		r := g.request(http.MethodGet, callback, navigation...)
		r.Header["Cookie"] = cookies
		wantNewLogin(t, g, g.do(r))
		if n := as.codesRedeemed(); n != 0 {
			t.Errorf("got %d redeemed codes, want 0", n)
		}
		b.wantAppAt(b.open(callback), "/wanted")
	})
}

// TestClosedTabDoesNotStopTheLogin: a code can be used once, so the login continues
// after the client disconnects.
func TestClosedTabDoesNotStopTheLogin(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	r := g.request(http.MethodGet, b.approve(b.start("/wanted")), navigation...)
	ctx, cancel := contextOf(r)
	cancel()
	a := b.send(r.WithContext(ctx), true)
	if a.status != http.StatusSeeOther || b.jar.get(sessionCookie) == nil {
		t.Errorf("got status %d, want 303: %s", a.status, a.body)
	}
}
