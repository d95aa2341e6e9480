package security

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const formType = "Content-Type: application/x-www-form-urlencoded"

// postLogoutToken posts a logout token as the authorization server does.
func (w *world) postLogoutToken(t testing.TB, token string, lines ...string) *client.Response {
	t.Helper()
	resp := w.browser().send(t, http.MethodPost, backchannel, url.Values{"logout_token": {token}}.Encode(), append(lines, formType)...)
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
	return resp
}

// logoutToken makes a logout token for the site.
func (w *world) logoutToken(t testing.TB, l fakeas.Logout) string {
	t.Helper()
	l.ClientID = clientID
	token, err := w.idp.LogoutToken(l)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// sid returns the session ID (claim sid) of a user's newest login.
func (w *world) sid(t testing.TB, user string) string {
	t.Helper()
	for _, issued := range slices.Backward(w.idp.Tokens()) {
		if issued.User == user {
			return issued.Family
		}
	}
	t.Fatalf("%s has never logged in", user)
	return ""
}

// checkEnded checks that the sessions of the browsers end on all instances.
func (w *world) checkEnded(t *testing.T, browsers ...*browser) {
	t.Helper()
	for _, b := range browsers {
		cookie := "Cookie: " + sessionCookie + "=" + b.session()
		for i := range w.instances {
			eventually(t, "end of the session", func() bool {
				return w.browserAt(i).send(t, http.MethodGet, "/x", "", append([]string{cookie}, scriptHeaders...)...).Status == http.StatusUnauthorized
			})
		}
	}
}

// twoSessions logs a user in with two browsers, at different instances. It returns the sid of the first
// session.
func (w *world) twoSessions(t *testing.T, user string) (first, second *browser, sid string) {
	t.Helper()
	first, second = w.browser(), w.browserAt(1)
	first.loginAs(t, user, "/")
	sid = w.sid(t, user)
	second.loginAs(t, user, "/")
	return first, second, sid
}

// checkLogoutAccepted checks the answer to a valid logout token.
func checkLogoutAccepted(t *testing.T, resp *client.Response) {
	t.Helper()
	if resp.Status != http.StatusOK || len(resp.Body) > 0 || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("got %v, want an empty 200 without cookies", resp)
	}
}

// TestS109DefectiveLogoutTokenEndsNothing: a logout token with any defect ends no session, on any
// instance. The type JWT is no defect: it is documented as valid, because older servers use it.
func TestS109DefectiveLogoutTokenEndsNothing(t *testing.T) {
	w := sharedRedis(t)
	loggedIn := w.browser()
	loggedIn.loginAs(t, "s109", "/")
	checkNoEffect := func(t *testing.T, resp *client.Response) {
		t.Helper()
		if resp.Status != http.StatusBadRequest {
			t.Errorf("got %v, want 400", resp)
		}
		w.checkGenericPage(t, resp.Body)
		loggedIn.checkSession(t)
		loggedIn.at(1).checkSession(t)
		if t.Failed() {
			loggedIn.loginAs(t, "s109", "/") // restore the session for the next subtests
		}
	}
	about := func(edit fakeas.TokenEdit) string {
		return w.logoutToken(t, fakeas.Logout{Subject: "s109", SessionID: w.sid(t, "s109"), Edit: edit})
	}
	for _, defect := range fakeas.LogoutDefects() {
		t.Run(defect.Name, func(t *testing.T) { checkNoEffect(t, w.postLogoutToken(t, about(defect.Edit))) })
	}
	t.Run("ID token", func(t *testing.T) {
		issued := issuedTokens(w.idp, fakeas.KindID, "s109")
		checkNoEffect(t, w.postLogoutToken(t, issued[len(issued)-1]))
	})
	t.Run("access token", func(t *testing.T) {
		checkNoEffect(t, w.postLogoutToken(t, issuedTokens(w.idp, fakeas.KindAccess, "s109")[0]))
	})
	valid := about(fakeas.TokenEdit{})
	form := url.Values{"logout_token": {valid}}.Encode()
	for name, request := range map[string]struct{ contentType, body string }{
		"JSON":           {"application/json", fmt.Sprintf(`{"logout_token":%q}`, valid)},
		"multipart":      {"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"logout_token\"\r\n\r\n" + valid + "\r\n--x--\r\n"},
		"plain text":     {"text/plain", form},
		"no type":        {"", form},
		"no body":        {"application/x-www-form-urlencoded", ""},
		"empty":          {"application/x-www-form-urlencoded", "logout_token="},
		"twice":          {"application/x-www-form-urlencoded", form + "&" + form},
		"other name":     {"application/x-www-form-urlencoded", strings.Replace(form, "logout", "LOGOUT", 1)},
		"1 MiB":          {"application/x-www-form-urlencoded", "x=" + strings.Repeat("x", 1<<20) + "&" + form},
		"1 MiB of token": {"application/x-www-form-urlencoded", form + strings.Repeat("A", 1<<20)},
		"invalid":        {"application/x-www-form-urlencoded", form + "%zz"},
	} {
		t.Run(name, func(t *testing.T) {
			checkNoEffect(t, w.browser().send(t, http.MethodPost, backchannel, request.body, "Content-Type: "+request.contentType))
		})
	}
}

// TestS109LogoutTokenInURLIsIgnored: a logout token in the query has no effect with any
// method. The site has no access log, because an access log shows URLs.
func TestS109LogoutTokenInURLIsIgnored(t *testing.T) {
	w := shared(t)
	v := &variant{name: "in-url", noAccessLog: true}
	w.addVariants(t, v)
	b := w.browser()
	v.login(t, b, "u")
	token, err := v.idp.LogoutToken(fakeas.Logout{ClientID: clientID, Subject: "u"})
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"logout_token": {token}}.Encode()
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions, "post", http.MethodPost} {
		body := form
		if method == http.MethodPost {
			body = ""
		}
		resp := w.browser().send(t, method, v.url+backchannel+"?"+form, body, formType)
		if resp.Status < 400 || resp.Status >= 500 {
			t.Errorf("%s: got %v, want a 4xx status", method, resp)
		}
		if resp := v.get(t, b, "/x"); resp.Status != http.StatusOK {
			t.Errorf("%s ended the session", method)
		}
	}
	// Control: the same token works in the body.
	if resp := w.browser().send(t, http.MethodPost, v.url+backchannel, form, formType); resp.Status != http.StatusOK {
		t.Errorf("token in the body: got %v, want 200", resp)
	}
	eventually(t, "end of the session", func() bool { return v.get(t, b, "/x").Status == http.StatusUnauthorized })
}

// TestS109LogoutTokenEndsNamedSessions: a valid logout token ends the sessions that it
// names, on all instances, and no others.
func TestS109LogoutTokenEndsNamedSessions(t *testing.T) {
	w := sharedRedis(t)
	t.Run("sid", func(t *testing.T) {
		first, second, sid := w.twoSessions(t, "s109-sid")
		checkLogoutAccepted(t, w.postLogoutToken(t, w.logoutToken(t, fakeas.Logout{SessionID: sid})))
		w.checkEnded(t, first)
		second.checkSession(t)
	})
	t.Run("sub", func(t *testing.T) {
		first, second, _ := w.twoSessions(t, "s109-sub")
		other := w.browser()
		other.loginAs(t, "s109-other", "/")
		checkLogoutAccepted(t, w.postLogoutToken(t, w.logoutToken(t, fakeas.Logout{Subject: "s109-sub"})))
		w.checkEnded(t, first, second)
		other.checkSession(t)
	})
	t.Run("unknown", func(t *testing.T) {
		first, _, _ := w.twoSessions(t, "s109-unknown")
		checkLogoutAccepted(t, w.postLogoutToken(t, w.logoutToken(t, fakeas.Logout{SessionID: "unknown"})))
		first.checkSession(t)
	})
	t.Run("typ JWT", func(t *testing.T) {
		first, _, sid := w.twoSessions(t, "s109-typ")
		edit := fakeas.TokenEdit{Header: fakeas.Edit{Set: map[string]any{"typ": "JWT"}}}
		checkLogoutAccepted(t, w.postLogoutToken(t, w.logoutToken(t, fakeas.Logout{SessionID: sid, Edit: edit})))
		w.checkEnded(t, first)
	})
	t.Run("cookie of another session", func(t *testing.T) {
		first, second, sid := w.twoSessions(t, "s109-cookie")
		checkLogoutAccepted(t, w.postLogoutToken(t, w.logoutToken(t, fakeas.Logout{SessionID: sid}), "Cookie: "+sessionCookie+"="+second.session()))
		w.checkEnded(t, first)
		second.checkSession(t)
	})
}

// TestS109LogoutTokenIsUsedOnce: a logout token is refused at every instance after its first use,
// so it cannot end a later session of the user.
func TestS109LogoutTokenIsUsedOnce(t *testing.T) {
	w := sharedRedis(t)
	token := w.logoutToken(t, fakeas.Logout{Subject: "s109-again"})
	checkLogoutAccepted(t, w.postLogoutToken(t, token))
	// The new login must be later than the token. The server's clock counts whole
	// seconds.
	w.idp.Set(func(k *fakeas.Knobs) { k.ClockOffset = 3e9 })
	b := w.browser()
	b.loginAs(t, "s109-again", "/")
	for i := range w.instances {
		resp := w.browserAt(i).send(t, http.MethodPost, backchannel, url.Values{"logout_token": {token}}.Encode(), formType)
		if resp.Status != http.StatusBadRequest {
			t.Errorf("second use at instance %d: got %v, want 400", i+1, resp)
		}
	}
	b.checkSession(t)
}

// TestS111LogoutFloodIsBounded: invalid logout tokens cost the site little memory and
// cause no request to the authorization server.
func TestS111LogoutFloodIsBounded(t *testing.T) {
	w := shared(t)
	v := &variant{name: "flood"}
	w.addVariants(t, v)
	fetches := v.awaitStartChecks(t)
	b64 := func(s string) string { return encodeSegment([]byte(s)) }
	signature := "." + b64(strings.Repeat("s", 64))
	garbage := []string{
		strings.Repeat("x", 10<<10), strings.Repeat("A", 1<<20), strings.Repeat(".", 10<<10), strings.Repeat(".", 1<<20), "..", "a.b.c",
		b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".",
		b64(`{"alg":"HS256"}`) + "." + b64(`{}`) + signature,
		b64(`{"alg":"ES256","typ":"at+jwt","kid":"x"}`) + "." + b64(`{}`) + signature,
		b64(`{"alg":"ES256","typ":"logout+jwt","kid":"x"}`) + "." + b64(`{"iss":"https://evil.test","aud":"app"}`) + signature,
		b64(`{"alg":"ES256","typ":"logout+jwt","kid":"x"}`) + "." + b64(strings.Repeat("[", 9000)) + signature,
	}
	memory := w.instances[0].metric(t, "process_resident_memory_bytes")
	n := amount(300, 2000)
	var running sync.WaitGroup
	for worker := range 8 {
		running.Go(func() {
			b := w.newBrowser(w.instances[0], true)
			for i := worker; i < n; i += 8 {
				form := url.Values{"logout_token": {garbage[i%len(garbage)]}}.Encode()
				resp, err := b.trySend(t.Context(), http.MethodPost, v.url+backchannel, form, formType)
				if err != nil || resp.Status != http.StatusBadRequest && resp.Status != http.StatusRequestEntityTooLarge {
					t.Errorf("post %d: got %v, %v, want 400 or 413", i, resp, err)
				}
			}
		})
	}
	running.Wait()
	if n := fetches(); n > 0 {
		t.Errorf("invalid tokens made the site fetch keys %d times", n)
	}
	if grown := w.instances[0].metric(t, "process_resident_memory_bytes") - memory; grown > 64<<20 {
		t.Errorf("memory grew by %.0f MiB, want at most 64", grown/(1<<20))
	}
}
