package handler

import (
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// formPostMode asks the server to send its answers as a form.
func formPostMode(s *setup) { s.oauth.ResponseMode = oauth.ResponseModeFormPost }

// sameSite sets the attribute of the session cookie.
func sameSite(mode string) func(*setup) {
	return func(s *setup) { s.handler.Cookie = Cookie{SameSite: mode} }
}

// response visits the server, and returns the form that it makes the browser send.
func (b *browser) response(authorizationURL string) string {
	b.t.Helper()
	a := b.visit(authorizationURL, "cross-site", true)
	target, form := submittedForm(a.body)
	if target != b.origin()+"/oauth2/callback" {
		b.t.Fatalf("authorization server: got status %d: %s, want a form for the callback", a.status, a.body)
	}
	return form
}

// post sends a response as the server's page makes the browser do.
func (b *browser) post(form string) *answer {
	b.t.Helper()
	return b.submit("/oauth2/callback", form, b.as.URL)
}

// finish submits the form of a hand-over page, and follows the answer to its end.
func (b *browser) finish(a *answer) *answer {
	b.t.Helper()
	target, form := submittedForm(a.body)
	if a.status != http.StatusOK || target != "/oauth2/callback" {
		b.t.Fatalf("%s: got status %d: %s, want the hand-over page", a.uri, a.status, a.body)
	}
	a = b.submit(target, form, b.origin())
	if a.location() == "" {
		return a
	}
	return b.walk(resolve(b.t.Fatalf, b.origin()+target, a.location()), "same-origin", nil)
}

// TestPostedResponseCompletesTheLogin whatever SameSite the cookies have, and without a
// secret in any URL.
func TestPostedResponseCompletesTheLogin(t *testing.T) {
	for mode, hops := range map[string]int{"lax": 5, "strict": 5, "none": 4} {
		for name, protocol := range map[string]func(*setup){"OpenID": func(*setup) {}, "OAuth 2.0": plainOAuth} {
			t.Run(mode+", "+name, func(t *testing.T) {
				g := newRig(t, formPostMode, sameSite(mode), protocol)
				g.as.Set(func(k *fakeas.Knobs) { k.IssParameter = true })
				b := g.browser()
				b.mustReach("/wanted?q=1")
				if len(b.hops) != hops {
					t.Errorf("got hops %q, want %d", b.hops, hops)
				}
				for _, hop := range b.hops {
					for _, secret := range g.as.Secrets() {
						if secret != "" && strings.Contains(hop, secret) {
							t.Errorf("got the secret %.12s… in a URL, want none", secret)
						}
					}
				}
				if len(b.jar.logins()) != 0 {
					t.Errorf("got login cookies %v after the login, want none", b.jar.logins())
				}
				b.mustReach("/again")
				if len(b.hops) != 1 || g.as.codesRedeemed() != 1 {
					t.Errorf("second page: got hops %q and %d logins, want one and 1", b.hops, g.as.codesRedeemed())
				}
			})
		}
	}
}

// TestHandOverPageRunsOneScript and works with a button where scripts are off.
func TestHandOverPageRunsOneScript(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	a := b.post(b.response(b.start("/wanted")))
	scripts := regexp.MustCompile(`<script>(.*?)</script>`).FindAllStringSubmatch(a.body, -1)
	csp := a.header.Get("Content-Security-Policy")
	if len(scripts) != 1 || !strings.Contains(csp, "script-src '"+sourceHash(scripts[0][1])+"'") || strings.Count(csp, "script-src") != 1 || strings.Contains(csp, "unsafe") {
		t.Errorf("got scripts %q with the policy %q, want one that its hash allows", scripts, csp)
	}
	if !strings.Contains(a.body, "<button>Continue</button>") || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Referrer-Policy") != "origin" || a.header["Set-Cookie"] != nil {
		t.Errorf("got %v: %s, want a page with a button that nothing stores, and no cookie", a.header, a.body)
	}
	b.wantAppAt(b.finish(a), "/wanted")
}

// TestTenTabsWithPostedResponses: all responses arrive before the first page continues.
func TestTenTabsWithPostedResponses(t *testing.T) {
	for _, mode := range []string{"lax", "strict"} {
		t.Run(mode, func(t *testing.T) {
			g := newRig(t, formPostMode, sameSite(mode))
			b := g.browser()
			wanted, at := startTabs(b, 10)
			pages := make([]*answer, len(at))
			for i := range at {
				pages[i] = b.post(b.response(at[i]))
			}
			for i := len(pages) - 1; i >= 0; i-- {
				b.wantAppAt(b.finish(pages[i]), wanted[i])
			}
			if n := g.as.codesRedeemed(); n != 1 {
				t.Errorf("got %d redeemed codes, want 1: the first tab's session serves all", n)
			}
			if b.jar.largest > 8<<10 {
				t.Errorf("got a Cookie header of %d bytes, want at most 8 KiB", b.jar.largest)
			}
		})
	}
}

// TestPostedResponseOfAnotherBrowserLogsNobodyIn: login CSRF. The victim's browser sends
// the attacker's response, or the attacker's form of the hand-over page.
func TestPostedResponseOfAnotherBrowserLogsNobodyIn(t *testing.T) {
	for name, prepare := range map[string]func(*browser){
		"no attempt":  func(*browser) {},
		"own attempt": func(b *browser) { b.start("/") },
		"session":     func(b *browser) { b.mustReach("/") },
	} {
		for _, mode := range []string{"lax", "strict", "none"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				g := newRig(t, formPostMode, sameSite(mode))
				attacker, victim := g.browser(), g.browser()
				response := attacker.response(attacker.start("/theirs"))
				_, handedOver := submittedForm(attacker.post(response).body)
				if mode == "none" {
					handedOver = "" // the attacker's own login is complete
					response = attacker.response(attacker.start("/oauth2/login?return_to=/theirs"))
				}
				prepare(victim)
				before, redeemed := victim.jar.get(sessionCookie), g.as.codesRedeemed()
				for _, origin := range []string{"https://evil.test", "null", g.as.URL} {
					a := victim.submit("/oauth2/callback", response, origin)
					if target, form := submittedForm(a.body); form != "" {
						a = victim.submit(target, form, victim.origin())
					}
					if a.status == http.StatusOK || a.relayed != 0 {
						t.Errorf("%s: got status %d: %s, want no login", origin, a.status, a.body)
					}
					if handedOver == "" {
						continue
					}
					if a := victim.submit("/oauth2/callback", handedOver, origin); a.status != http.StatusForbidden || !strings.Contains(a.body, "cross_origin") {
						t.Errorf("the second form of %s: got status %d: %s, want 403", origin, a.status, a.body)
					}
				}
				if victim.jar.get(sessionCookie) != before || g.as.codesRedeemed() != redeemed {
					t.Errorf("got session %v and %d redeemed codes, want the former session and none", victim.jar.get(sessionCookie), g.as.codesRedeemed()-redeemed)
				}
			})
		}
	}
}

// TestBrokenPostedResponseSendsNoCode, and gets no page that goes on.
func TestBrokenPostedResponseSendsNoCode(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	at := b.start("/wanted")
	response := b.response(at)
	state := url.Values{"state": {stateOf(t, at)}}.Encode()
	_, handedOver := submittedForm(b.post(response).body)
	altered := []byte(handedOver)
	if i := len(altered) / 2; altered[i] == 'A' {
		altered[i] = 'B'
	} else {
		altered[i] = 'A'
	}
	for name, tt := range map[string]struct{ media, form string }{
		"JSON":                  {"application/json", response},
		"multipart":             {"multipart/form-data; boundary=x", response},
		"text":                  {"text/plain", response},
		"no media type":         {"", response},
		"empty":                 {urlencoded, ""},
		"not encoded":           {urlencoded, "code=%zz&" + state},
		"code twice":            {urlencoded, "code=a&code=b&" + state},
		"code twice, escaped":   {urlencoded, "code=a&%63ode=b&" + state},
		"state twice":           {urlencoded, "code=a&" + state + "&" + state},
		"iss twice":             {urlencoded, "code=a&iss=x&iss=x&" + state},
		"error twice":           {urlencoded, "error=a&error=b&" + state},
		"handed over twice":     {urlencoded, handedOver + "&" + handedOver},
		"no state":              {urlencoded, "code=a"},
		"made-up state":         {urlencoded, "code=a&state=made-up"},
		"error without state":   {urlencoded, "error=access_denied"},
		"too large":             {urlencoded, "code=" + strings.Repeat("x", maxForm) + "&" + state},
		"too many fields":       {urlencoded, "code=a&" + state + strings.Repeat("&x=1", maxFormFields)},
		"made-up hand-over":     {urlencoded, handOverField + "=" + strings.Repeat("A", 200)},
		"altered hand-over":     {urlencoded, string(altered)},
		"hand-over of a state":  {urlencoded, handOverField + "=" + stateOf(t, at)},
		"hand-over of a cookie": {urlencoded, handOverField + "=" + b.jar.logins()[0].Value},
	} {
		r := g.request(http.MethodPost, "/oauth2/callback", append(navigation, "Origin: "+appOrigin)...)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		if r.Header.Del("Content-Type"); tt.media != "" {
			r.Header.Set("Content-Type", tt.media)
		}
		r.Body = io.NopCloser(strings.NewReader(tt.form))
		a := b.send(r, true)
		if a.status != http.StatusBadRequest || a.header["Set-Cookie"] != nil || postNow.MatchString(a.body) {
			t.Errorf("%s: got status %d: %s, want 400 without cookies", name, a.status, a.body)
		}
	}
	if a := b.post("code=" + strings.Repeat("x", maxHandOver) + "&" + state); a.status != http.StatusBadRequest {
		t.Errorf("too large to seal: got status %d, want 400", a.status)
	}
	r := g.request(http.MethodPost, "/oauth2/callback?"+response, append(navigation, "Content-Type: "+urlencoded)...)
	if a := b.send(r, true); a.status != http.StatusBadRequest {
		t.Errorf("response in the query of a POST: got status %d, want 400", a.status)
	}
	r = g.request(http.MethodPost, "/oauth2/callback", append(navigation, "Content-Type: "+urlencoded)...)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(response), brokenReader{}))
	if a := b.send(r, true); a.status != http.StatusBadRequest {
		t.Errorf("body that breaks off: got status %d, want 400", a.status)
	}
	for _, method := range []string{"HEAD", "OPTIONS", "PUT", "post"} {
		if a := b.send(g.request(method, "/oauth2/callback", navigation...), true); a.status != 405 || a.header.Get("Allow") != "GET, POST" {
			t.Errorf("%s: got status %d, Allow %q, want 405", method, a.status, a.header.Get("Allow"))
		}
	}
	if n := g.as.codesRedeemed(); n != 0 {
		t.Errorf("got %d codes at the token endpoint, want 0", n)
	}
	b.wantAppAt(b.finish(b.post(response)), "/wanted")
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestPostedCodeMayBeLong: some servers issue codes of several kilobytes, more than a
// cookie could hold.
func TestPostedCodeMayBeLong(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	at := b.start("/wanted")
	form := url.Values{"code": {strings.Repeat("c", 30<<10)}, "state": {stateOf(t, at)}}.Encode()
	b.finish(b.post(form))
	sent := g.as.Log(fakeas.EndpointToken)
	if len(sent) == 0 || len(sent[0].Form.Get("code")) != 30<<10 {
		t.Errorf("got %d token requests, want the whole code in the first", len(sent))
	}
}

// TestPostedResponseIsRedeemedOnce, however often the browser sends it: the script and
// an impatient user press the button, or a page is loaded again.
func TestPostedResponseIsRedeemedOnce(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	response := b.response(b.start("/wanted"))
	first, second := b.post(response), b.post(response)
	_, form := submittedForm(first.body)
	cookies := b.jar.header(false)
	b.wantAppAt(b.finish(first), "/wanted")
	session := b.jar.get(sessionCookie).Value
	r := g.request(http.MethodPost, "/oauth2/callback", formPost...)
	r.Body, r.Header["Cookie"] = io.NopCloser(strings.NewReader(form)), cookies
	if a := g.do(r); a.status != http.StatusSeeOther || !strings.Contains(sessionCookieLine(a), session) {
		t.Errorf("same form again: got status %d, want the session of the first", a.status)
	}
	b.wantAppAt(b.finish(second), "/wanted")
	b.wantAppAt(b.finish(b.post(response)), "/wanted")
	if stats := g.as.Stats(); stats.Grants[fakeas.GrantCode] != 1 || stats.CodeReuses != 0 || b.jar.get(sessionCookie).Value != session {
		t.Errorf("got %d redeemed codes, want 1 and one session", stats.Grants[fakeas.GrantCode])
	}
	// Without a session, one more login leads there.
	b.jar.cookies = nil
	b.wantAppAt(b.finish(b.post(response)), "/wanted")
}

// TestPostedErrorsAreTreatedLikeThoseInTheURL: also with an iss that must match.
func TestPostedErrorsAreTreatedLikeThoseInTheURL(t *testing.T) {
	for name, tt := range map[string]struct {
		error  string
		iss    any
		status int
		code   string
		logins int
	}{
		"denied":           {"access_denied", nil, 403, "access_denied", 1},
		"unknown":          {"invalid_scope", nil, 502, "login_failed", 1},
		"temporary":        {"temporarily_unavailable", nil, 502, "login_failed", 3},
		"of another":       {"temporarily_unavailable", "https://evil.test", 502, "login_failed", 1},
		"denied, no iss":   {"access_denied", "", 502, "login_failed", 1},
		"denied, other":    {"access_denied", "https://evil.test", 502, "login_failed", 1},
		"required, silent": {"login_required", nil, 502, "login_failed", 3},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, formPostMode)
			g.as.Set(func(k *fakeas.Knobs) {
				k.IssParameter = true
				if tt.iss != nil {
					k.Callback = fakeas.Edit{Set: map[string]any{"iss": tt.iss}}
				}
			})
			g.as.Fail(fakeas.OAuthError(tt.error).At(fakeas.EndpointAuthorize).Repeat(-1))
			b := g.browser()
			wantLoginLink(t, b.open("/wanted"), tt.status, tt.code)
			if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != tt.logins || g.as.codesRedeemed() != 0 {
				t.Errorf("got %d visits to the server, want %d", n, tt.logins)
			}
			g.as.ClearFaults()
			g.as.Set(func(k *fakeas.Knobs) { k.Callback = fakeas.Edit{} })
			b.mustReach("/wanted")
		})
	}
}

// TestErrorInTheURLIsAcceptedWithFormPost: servers redirect with the error if they do not
// know the response mode. A code in the URL is refused, and the page leads on.
func TestErrorInTheURLIsAcceptedWithFormPost(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	at := b.start("/wanted")
	a := b.open("/oauth2/callback?error=access_denied&state=" + stateOf(t, at))
	wantLoginLink(t, a, 403, "access_denied")

	at = b.start("/wanted")
	code, err := url.ParseQuery(b.response(at))
	if err != nil {
		t.Fatal(err)
	}
	a = b.open("/oauth2/callback?" + code.Encode())
	wantLoginLink(t, a, 502, "misconfigured")
	if g.as.codesRedeemed() != 0 || len(b.jar.logins()) != 0 || len(g.log.lines("response_mode")) != 1 {
		t.Errorf("got %d redeemed codes, cookies %v and log %s, want none, and the option in the log", g.as.codesRedeemed(), b.jar.logins(), g.log.text())
	}
	b.mustReach("/wanted")
}

// TestLoginSurvivesANewResponseMode: an operator sets form_post while a user signs in.
func TestLoginSurvivesANewResponseMode(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	callback := b.approve(b.start("/wanted"))
	client, err := oauth.New(oauth.Config{
		Issuer: g.as.URL, ClientID: "app", ClientSecret: func() (string, error) { return clientSecret, nil }, ResponseMode: oauth.ResponseModeFormPost,
	})
	if err != nil {
		t.Fatal(err)
	}
	g.handler.Client = client
	b.wantAppAt(b.open(callback), "/wanted")
}

// TestPostedCallbackNamesTheOption if the server answers with a form that nobody asked
// for.
func TestPostedCallbackNamesTheOption(t *testing.T) {
	g := newRig(t)
	g.as.Set(func(k *fakeas.Knobs) { k.FormPost = true })
	b := g.browser()
	for range 2 {
		a := b.open("/wanted")
		if a.status != 405 || a.header.Get("Allow") != "GET" || !strings.Contains(a.body, "response_mode form_post") || g.as.codesRedeemed() != 0 {
			t.Errorf("got status %d: %s, want 405 with the option", a.status, a.body)
		}
	}
	if lines := g.log.lines("set response_mode form_post"); len(lines) != 1 {
		t.Errorf("got log %s, want one line with the option", g.log.text())
	}
}

// TestOutageDuringAPostedCallbackIsRetriedByThePage: the page goes to a new login, not
// to the form's target.
func TestOutageDuringAPostedCallbackIsRetriedByThePage(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	page := b.post(b.response(b.start("/wanted")))
	g.as.Fail(fakeas.Unavailable())
	_, form := submittedForm(page.body)
	a := b.submit("/oauth2/callback", form, b.origin())
	if a.status != 503 {
		t.Fatalf("got status %d, want 503: %s", a.status, a.body)
	}
	b.wantAppAt(b.open(wantReloadToLogin(t, a)), "/wanted")
}

// TestBrowserWithoutCookiesDoesNotLoop although the pages continue by themselves.
func TestBrowserWithoutCookiesDoesNotLoop(t *testing.T) {
	g := newRig(t, formPostMode)
	b := g.browser()
	b.jar.refuse = func(string) bool { return true }
	wantLoginLink(t, b.open("/wanted"), 400, "cookies_blocked")
	if n := g.as.Stats().Requests[fakeas.EndpointAuthorize]; n != 2 || g.as.codesRedeemed() != 0 {
		t.Errorf("got %d visits to the server, want 2", n)
	}
}

// TestOnlyTheCallbackTakesFormsOfTheServer: a form of another site is refused at every
// other path.
func TestOnlyTheCallbackTakesFormsOfTheServer(t *testing.T) {
	g := newRig(t, formPostMode, sameSite("none"))
	b := g.loggedIn()
	for _, path := range []string{"/", "/api", "/oauth2/logout", "/oauth2/session/refresh"} {
		for _, origin := range []string{"null", g.as.URL, "https://evil.test"} {
			if a := b.submit(path, "a=b", origin); a.status != http.StatusForbidden || a.relayed != 0 {
				t.Errorf("%s from %s: got status %d, want 403", path, origin, a.status)
			}
		}
	}
}

// TestResponseModeIsSentAsConfigured, and only then.
func TestResponseModeIsSentAsConfigured(t *testing.T) {
	for _, mode := range []string{"", "query", "form_post"} {
		g := newRig(t, func(s *setup) { s.oauth.ResponseMode = mode })
		u, err := url.Parse(html.UnescapeString(g.browser().start("/")))
		if err != nil {
			t.Fatal(err)
		}
		if got := u.Query().Get("response_mode"); got != mode || u.Query().Has("response_mode") != (mode != "") {
			t.Errorf("response_mode %q: got %q in %s", mode, got, u)
		}
	}
}
