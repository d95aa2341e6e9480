package handler

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const urlencoded = "application/x-www-form-urlencoded"

// logoutToken makes a logout token for this site.
func (g *rig) logoutToken(l fakeas.Logout) string {
	g.t.Helper()
	l.ClientID = "app"
	token, err := g.as.LogoutToken(l)
	if err != nil {
		g.t.Fatal(err)
	}
	return token
}

// backchannel sends a logout request like a server.
func (g *rig) backchannel(contentType, body string, header ...string) *answer {
	g.t.Helper()
	r := g.request("POST", "/oauth2"+backchannelPath, header...)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.Body = io.NopCloser(strings.NewReader(body))
	return g.do(r)
}

func (g *rig) sendLogout(l fakeas.Logout) *answer {
	g.t.Helper()
	return g.backchannel(urlencoded, url.Values{"logout_token": {g.logoutToken(l)}}.Encode())
}

func wantLogout(t *testing.T, what string, a *answer, status int) {
	t.Helper()
	body := map[int]string{200: "", 400: `{"error":"invalid_request"}` + "\n", 503: `{"error":"temporarily_unavailable"}` + "\n"}
	if a.status != status || a.body != body[status] || a.err != nil || a.relayed != 0 {
		t.Errorf("%s: got status %d, want %d, %q, error %v", what, a.status, status, a.body, a.err)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s: got Cache-Control %q, want no-store", what, got)
	}
	if a.header.Get("Set-Cookie") != "" {
		t.Errorf("%s: got a cookie, want none", what)
	}
}

// sid returns the server's ID of its session of the latest login.
func (g *rig) sid() string {
	all := g.as.Tokens()
	return all[len(all)-1].Family
}

func TestBackchannelLogoutEndsTheNamedSessions(t *testing.T) {
	for _, tt := range []struct {
		name   string
		logout func(sub, sid string) fakeas.Logout
		second bool // the user's other session ends too
	}{
		{"sid", func(_, sid string) fakeas.Logout { return fakeas.Logout{SessionID: sid} }, false},
		{"sub and sid", func(sub, sid string) fakeas.Logout { return fakeas.Logout{Subject: sub, SessionID: sid} }, false},
		{"sub", func(sub, _ string) fakeas.Logout { return fakeas.Logout{Subject: sub} }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			second := g.loggedIn().jar.get(sessionCookie).Value
			first := g.loggedIn().jar.get(sessionCookie).Value
			sid, sub := g.sid(), g.as.Tokens()[0].User
			other := g.sessionOf(keeper.Identity{Subject: "somebody else", SID: "other"}, keeper.Tokens{AccessToken: "AT_of_another"})
			wantLogout(t, "logout of an unknown user", g.sendLogout(fakeas.Logout{Subject: "nobody", SessionID: "nothing"}), 200)
			if _, err := g.peek(first); err != nil {
				t.Fatalf("before the logout: got error %v, want a session", err)
			}
			wantLogout(t, "logout", g.sendLogout(tt.logout(sub, sid)), 200)
			gone(t, g, first)
			if _, err := g.peek(second); errors.Is(err, keeper.ErrNoSession) != tt.second {
				t.Errorf("the other session: %v, want it ended: %v", err, tt.second)
			}
			if _, err := g.peek(other); err != nil {
				t.Errorf("session of another user: got error %v, want it kept", err)
			}
			wantLogout(t, "once more", g.sendLogout(tt.logout(sub, sid)), 200)
		})
	}
}

// TestBackchannelLogoutNeedsBothUserAndSession: a token that names both ends the
// session only if it belongs to that user.
func TestBackchannelLogoutNeedsBothUserAndSession(t *testing.T) {
	g := newRig(t)
	cookie := g.loggedIn().jar.get(sessionCookie).Value
	sid, sub := g.sid(), g.as.Tokens()[0].User
	other := g.sessionOf(keeper.Identity{Subject: "somebody else", SID: "other"}, keeper.Tokens{AccessToken: "AT_of_another"})
	for name, logout := range map[string]fakeas.Logout{
		"another user":           {Subject: "somebody else", SessionID: sid},
		"unknown user":           {Subject: "nobody", SessionID: sid},
		"another user's session": {Subject: sub, SessionID: "other"},
		"user in other letters":  {Subject: strings.ToUpper(sub), SessionID: sid},
	} {
		wantLogout(t, name, g.sendLogout(logout), 200)
		for _, cookie := range []string{cookie, other} {
			if _, err := g.peek(cookie); err != nil {
				t.Fatalf("%s: got error %v, want the session kept", name, err)
			}
		}
	}
	wantLogout(t, "the user's own", g.sendLogout(fakeas.Logout{Subject: sub, SessionID: sid}), 200)
	gone(t, g, cookie)
}

func (g *rig) peek(cookie string) (*keeper.Session, error) {
	secret, ok := seal.ParseSecret(cookie)
	if !ok {
		g.t.Fatalf("got %q, want a session cookie", cookie)
	}
	return g.keeper.Peek(context.Background(), secret)
}

// TestBackchannelLogoutWithoutExpiryEndsTheSession: Hydra and Glewlwyd send no exp.
// Such a token works once, and for as long as any other.
func TestBackchannelLogoutWithoutExpiryEndsTheSession(t *testing.T) {
	g := newRig(t)
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for _, tt := range []struct {
		name   string
		edit   fakeas.Edit
		status int
	}{
		{"no exp", fakeas.Edit{Omit: []string{"exp"}}, 200},
		{"exp null", fakeas.Edit{Set: map[string]any{"exp": nil}}, 200},
		{"exp as a text", fakeas.Edit{Set: map[string]any{"exp": "soon"}}, 200},
		{"no exp, four minutes old", fakeas.Edit{Set: map[string]any{"iat": ago(4 * time.Minute)}, Omit: []string{"exp"}}, 200},
		{"no exp, ten minutes old", fakeas.Edit{Set: map[string]any{"iat": ago(10 * time.Minute)}, Omit: []string{"exp"}}, 400},
		{"no exp, no iat", fakeas.Edit{Omit: []string{"exp", "iat"}}, 400},
	} {
		cookie := g.loggedIn().jar.get(sessionCookie).Value
		edit := fakeas.TokenEdit{Claims: tt.edit, Header: fakeas.Edit{Set: map[string]any{"typ": "JWT"}}}
		form := url.Values{"logout_token": {g.logoutToken(fakeas.Logout{SessionID: g.sid(), Edit: edit})}}.Encode()
		wantLogout(t, tt.name, g.backchannel(urlencoded, form), tt.status)
		if _, err := g.peek(cookie); errors.Is(err, keeper.ErrNoSession) != (tt.status == 200) {
			t.Errorf("%s: got error %v from the session, want it ended: %v", tt.name, err, tt.status == 200)
		}
		wantLogout(t, tt.name+", again", g.backchannel(urlencoded, form), 400)
	}
}

// TestBackchannelLogoutRefusesDefectiveRequests, which end no session.
func TestBackchannelLogoutRefusesDefectiveRequests(t *testing.T) {
	g := newRig(t)
	cookie := g.loggedIn().jar.get(sessionCookie).Value
	about := fakeas.Logout{Subject: g.as.Tokens()[0].User, SessionID: g.sid()}
	for _, d := range fakeas.LogoutDefects() {
		l := about
		l.Edit = d.Edit
		wantLogout(t, d.Name, g.sendLogout(l), 400)
	}
	for _, issued := range g.as.Tokens() {
		form := url.Values{"logout_token": {issued.Value}}.Encode()
		wantLogout(t, string(issued.Kind)+" as logout token", g.backchannel(urlencoded, form), 400)
	}
	good := url.Values{"logout_token": {g.logoutToken(about)}}.Encode()
	for name, tt := range map[string]struct{ contentType, body string }{
		"no type":            {"", good},
		"JSON":               {"application/json", `{"logout_token":"x"}`},
		"form as JSON":       {"application/json", good},
		"multipart":          {"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"logout_token\"\r\n\r\nx\r\n--x--"},
		"text":               {"text/plain", good},
		"no body":            {urlencoded, ""},
		"other parameter":    {urlencoded, "token=x"},
		"empty":              {urlencoded, "logout_token="},
		"twice":              {urlencoded, good + "&" + good},
		"twice, one empty":   {urlencoded, good + "&logout_token="},
		"twice, escaped":     {urlencoded, good + "&logout%5ftoken=x"},
		"not a form":         {urlencoded, "logout_token=%zz"},
		"too large":          {urlencoded, good + "&x=" + strings.Repeat("x", maxForm)},
		"too large, garbage": {urlencoded, strings.Repeat(".", 1<<20)},
		"dots":               {urlencoded, "logout_token=" + strings.Repeat(".", 10<<10)},
		"odd bytes":          {urlencoded, "logout_token=%00%ff%0d%0a"},
	} {
		wantLogout(t, name, g.backchannel(tt.contentType, tt.body), 400)
	}
	r := g.request("POST", "/oauth2"+backchannelPath+"?"+good)
	r.Header.Set("Content-Type", urlencoded)
	wantLogout(t, "in the query", g.do(r), 400)
	r = g.request("POST", "/oauth2"+backchannelPath)
	r.Header.Set("Content-Type", urlencoded)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(good), iotest.ErrReader(errors.New("cut"))))
	wantLogout(t, "cut off", g.do(r), 400)
	for _, method := range []string{"GET", "HEAD", "PUT", "OPTIONS"} {
		if a := g.do(g.request(method, "/oauth2"+backchannelPath)); a.status != 405 || a.header.Get("Allow") != "POST" {
			t.Errorf("%s: got status %d, want 405", method, a.status)
		}
	}
	if _, err := g.peek(cookie); err != nil {
		t.Errorf("got error %v, want the session kept", err)
	}
	// The same token in a correct request is accepted.
	wantLogout(t, "good", g.backchannel(urlencoded+"; charset=utf-8", "x=1&x=2&"+good), 200)
	gone(t, g, cookie)
}

// TestBackchannelLogoutIgnoresBrowserHeaders: cookies and Origin have no effect.
func TestBackchannelLogoutIgnoresBrowserHeaders(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	cookie := b.jar.get(sessionCookie).Value
	about := fakeas.Logout{SessionID: "another"}
	form := func() string { return url.Values{"logout_token": {g.logoutToken(about)}}.Encode() }
	for _, header := range [][]string{
		{"Cookie: " + sessionCookie + "=" + cookie},
		{"Origin: https://evil.test", "Sec-Fetch-Site: cross-site"},
		{"Origin: null"},
	} {
		wantLogout(t, header[0], g.backchannel(urlencoded, form(), header...), 200)
	}
	if _, err := g.peek(cookie); err != nil {
		t.Errorf("got error %v, want the session kept", err)
	}
}

func TestBackchannelLogoutRefusesAReplay(t *testing.T) {
	g := newRig(t)
	first := g.loggedIn().jar.get(sessionCookie).Value
	form := url.Values{"logout_token": {g.logoutToken(fakeas.Logout{Subject: g.as.Tokens()[0].User})}}.Encode()
	wantLogout(t, "logout", g.backchannel(urlencoded, form), 200)
	gone(t, g, first)
	again := g.sessionOf(keeper.Identity{Subject: g.as.Tokens()[0].User, IssuedAt: time.Now().Add(time.Hour)}, keeper.Tokens{AccessToken: "AT_again"})
	wantLogout(t, "the same token", g.backchannel(urlencoded, form), 400)
	if _, err := g.peek(again); err != nil {
		t.Errorf("session of the next login: got error %v, want it kept", err)
	}
}

// TestBackchannelLogoutMayBeRepeatedAfterAFailure of the store or of the key
// server.
func TestBackchannelLogoutMayBeRepeatedAfterAFailure(t *testing.T) {
	g := newRig(t)
	cookie := g.loggedIn().jar.get(sessionCookie).Value
	form := url.Values{"logout_token": {g.logoutToken(fakeas.Logout{SessionID: g.sid()})}}.Encode()
	wantRetry := func(what string) {
		t.Helper()
		a := g.backchannel(urlencoded, form)
		wantLogout(t, what, a, 503)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: got no Retry-After, want one", what)
		}
	}
	g.store.down.Store(true)
	wantRetry("store down")
	g.store.down.Store(false)
	wantLogout(t, "store up", g.backchannel(urlencoded, form), 200)
	gone(t, g, cookie)

	// Another site has not fetched the keys yet.
	g = newRigAt(t, g.as)
	form = url.Values{"logout_token": {g.logoutToken(fakeas.Logout{SessionID: "any"})}}.Encode()
	g.as.Fail(fakeas.Fault{Endpoint: fakeas.EndpointJWKS, Status: 503, Times: 1})
	wantRetry("no keys")
}

// TestForgedLogoutTokenFetchesNoKeys, and no metadata: anyone can send one.
func TestForgedLogoutTokenFetchesNoKeys(t *testing.T) {
	g := newRig(t)
	for range 3 {
		for _, garbage := range []string{"", "x", "a.b.c", strings.Repeat(".", 1000), strings.Repeat("x", 60<<10)} {
			wantLogout(t, "garbage", g.backchannel(urlencoded, "logout_token="+garbage), 400)
		}
		for _, defect := range []fakeas.Defect{
			fakeas.DefectNone, fakeas.DefectHMACSecret, fakeas.DefectIssuer, fakeas.DefectAudience, fakeas.DefectExpired, fakeas.DefectTypeAccess,
		} {
			l := fakeas.Logout{Subject: "alice", Edit: fakeas.TokenEdit{Defect: defect}}
			wantLogout(t, string(defect), g.sendLogout(l), 400)
		}
	}
	if requests := g.as.Stats().Requests; len(requests) != 0 {
		t.Errorf("got requests %v at the authorization server, want none", requests)
	}
	if n := strings.Count(g.log.text(), "logout request refused"); n != 1 {
		t.Errorf("got %d lines in the log, want 1", n)
	}
}

// TestBackchannelLogoutNeedsOpenID: with plain OAuth 2.0 the endpoint does not
// exist.
func TestBackchannelLogoutNeedsOpenID(t *testing.T) {
	g := newRig(t, plainOAuth)
	if a := g.sendLogout(fakeas.Logout{Subject: "alice"}); a.status != 404 {
		t.Errorf("got status %d, want 404", a.status)
	}
}

// TestEndlessLogoutBodyIsCutOff when it is too large. After a good request the
// connection can be used again.
func TestEndlessLogoutBodyIsCutOff(t *testing.T) {
	g := newRig(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	post := func(body io.Reader) int {
		t.Helper()
		resp, err := server.Client().Post(server.URL+"/oauth2"+backchannelPath, urlencoded, body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for range 2 {
		form := url.Values{"logout_token": {g.logoutToken(fakeas.Logout{Subject: "alice"})}}.Encode()
		if status := post(strings.NewReader(form)); status != 200 {
			t.Errorf("got status %d, want 200", status)
		}
	}
	endless, more := io.Pipe()
	defer endless.Close()
	go func() {
		for {
			if _, err := more.Write([]byte(strings.Repeat("x", 1024))); err != nil {
				return
			}
		}
	}()
	if status := post(endless); status != 400 {
		t.Errorf("an endless body: got status %d, want 400", status)
	}
}

// deadlines records the deadlines that a handler sets.
type deadlines struct {
	*httptest.ResponseRecorder
	read []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = append(d.read, t)
	return nil
}

// TestLogoutBodyHasADeadline, which is removed afterwards: it would end the
// request's context.
func TestLogoutBodyHasADeadline(t *testing.T) {
	g := newRig(t)
	r := g.request("POST", "/oauth2"+backchannelPath)
	r.Header.Set("Content-Type", urlencoded)
	r.Body = io.NopCloser(strings.NewReader("logout_token=x"))
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
		t.Fatal(err)
	}
	if len(w.read) != 2 || w.read[0].IsZero() || time.Until(w.read[0]) > formTime || !w.read[1].IsZero() {
		t.Errorf("got read deadlines %v, want one within the limit, and then none", w.read)
	}
}
