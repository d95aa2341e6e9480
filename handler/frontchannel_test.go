package handler

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func frontchannel(s *setup) { s.handler.FrontchannelLogout = true }

// serverFrame has the headers of a frame in a page of another site.
var serverFrame = []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", acceptHTML}

// frontchannelQuery returns the query with which the server names the session of the
// last login.
func (g *rig) frontchannelQuery() string {
	tokens := g.as.Tokens()
	return url.Values{"iss": {g.as.URL}, "sid": {tokens[len(tokens)-1].Family}}.Encode()
}

// mustKeep fails the test if the browser's session has ended.
func (b *browser) mustKeep(what string) {
	b.t.Helper()
	if a := b.fetch("GET", "/"); a.status != 200 || a.relayed != 1 {
		b.t.Errorf("%s: got status %d, want the session kept", what, a.status)
	}
}

func TestFrontchannelLogoutEndsTheSessionOfThisBrowser(t *testing.T) {
	for name, header := range map[string][]string{
		"frame": serverFrame, "frameset": {"Sec-Fetch-Dest: frame"}, "browser without Fetch Metadata": {acceptHTML},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, frontchannel)
			b := g.loggedIn()
			query, old := g.frontchannelQuery(), b.jar.get(sessionCookie).Value
			a := b.send(g.request("GET", "/oauth2/frontchannel_logout?other=1&"+query, header...), false)
			if a.status != 200 || a.body != "" || b.jar.get(sessionCookie) != nil {
				t.Errorf("got status %d, body %q, cookies %v; want 200, nothing and none", a.status, a.body, b.jar.cookies)
			}
			gone(t, g, old)
			<-g.as.revoked
		})
	}
}

// TestOnlyTheAnswerToAFrontchannelLogoutMayBeFramed: by the issuer alone.
func TestOnlyTheAnswerToAFrontchannelLogoutMayBeFramed(t *testing.T) {
	g := newRig(t, frontchannel)
	path := "/oauth2/frontchannel_logout?iss=" + url.QueryEscape(g.as.URL)
	a := g.get(path+"&sid=other", serverFrame...)
	if got := a.header.Get("Content-Security-Policy"); a.status != 200 || !strings.Contains(got, "frame-ancestors "+g.as.URL+";") || a.header.Get("X-Frame-Options") != "" {
		t.Errorf("got status %d, Content-Security-Policy %q, X-Frame-Options %q; want the issuer alone", a.status, got, a.header.Get("X-Frame-Options"))
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
	for _, path := range []string{path, "/oauth2/logout", "/oauth2/logout/callback", "/oauth2/session", "/oauth2/none"} {
		a := g.get(path, serverFrame...)
		if got := a.header.Get("Content-Security-Policy"); !strings.Contains(got, "frame-ancestors 'none'") || a.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: got Content-Security-Policy %q, X-Frame-Options %q; want no frame", path, got, a.header.Get("X-Frame-Options"))
		}
	}
}

// TestFrontchannelLogoutRefusesDefectiveRequests: they end nothing, and answer no cookie.
func TestFrontchannelLogoutRefusesDefectiveRequests(t *testing.T) {
	g := newRig(t, frontchannel)
	b := g.loggedIn()
	good := g.frontchannelQuery()
	q, _ := url.ParseQuery(good)
	iss, sid := "iss="+url.QueryEscape(q.Get("iss")), "sid="+url.QueryEscape(q.Get("sid"))
	image := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}
	for _, tc := range []struct {
		name, method, query string
		header              []string
		status              int
	}{
		{"nothing", "GET", "", serverFrame, 400},
		{"no iss", "GET", sid, serverFrame, 400},
		{"empty iss", "GET", "iss=&" + sid, serverFrame, 400},
		{"other iss", "GET", "iss=https%3A%2F%2Fevil.test&" + sid, serverFrame, 400},
		{"iss with a slash", "GET", iss + "%2F&" + sid, serverFrame, 400},
		{"iss in capitals", "GET", strings.Replace(iss, "http%3A", "HTTP%3A", 1) + "&" + sid, serverFrame, 400},
		{"no sid", "GET", iss, serverFrame, 400},
		{"empty sid", "GET", iss + "&sid=", serverFrame, 400},
		{"other sid", "GET", iss + "&sid=other", serverFrame, 200},
		{"longer sid", "GET", good + "x", serverFrame, 200},
		{"iss twice", "GET", good + "&" + iss, serverFrame, 400},
		{"sid twice", "GET", good + "&" + sid, serverFrame, 400},
		{"two sids", "GET", good + "&sid=other", serverFrame, 400},
		{"invalid query", "GET", good + "&x=%zz", serverFrame, 400},
		{"POST", "POST", good, serverFrame, 405},
		{"HEAD", "HEAD", good, serverFrame, 405},
		{"Sec-Purpose", "GET", good, append(slices.Clone(serverFrame), "Sec-Purpose: prefetch;prerender"), 400},
		{"Purpose", "GET", good, append(slices.Clone(serverFrame), "Purpose: prefetch"), 400},
		{"window", "GET", good, navigation, 400},
		{"link of another site", "GET", good, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", acceptHTML}, 400},
		{"image of another site", "GET", good, image, 400},
		{"script", "GET", good, script, 400},
		{"early data", "GET", good, append(slices.Clone(serverFrame), "Early-Data: 1"), 425},
	} {
		a := b.send(g.request(tc.method, "/oauth2/frontchannel_logout?"+tc.query, tc.header...), false)
		if a.status != tc.status || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: got status %d, Set-Cookie %q; want %d and none", tc.name, a.status, a.header.Get("Set-Cookie"), tc.status)
		}
		b.mustKeep(tc.name)
	}
}

// TestFrontchannelLogoutNeedsTheCookie: whoever has seen the sid of another user cannot
// log that user out.
func TestFrontchannelLogoutNeedsTheCookie(t *testing.T) {
	g := newRig(t, frontchannel)
	alice := g.loggedIn()
	query := g.frontchannelQuery()
	mallory := g.loggedIn()
	for name, b := range map[string]*browser{"no cookie": g.browser(), "cookie of another session": mallory} {
		if a := b.send(g.request("GET", "/oauth2/frontchannel_logout?"+query, serverFrame...), false); a.status != 200 || a.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: got status %d, Set-Cookie %q; want 200 and none", name, a.status, a.header.Get("Set-Cookie"))
		}
		alice.mustKeep(name)
	}
	mallory.mustKeep("cookie of another session")
}

// TestFrontchannelLogoutIsNotConfirmedWhileTheStoreIsDown: no answer confirms it.
func TestFrontchannelLogoutIsNotConfirmedWhileTheStoreIsDown(t *testing.T) {
	g := newRig(t, frontchannel)
	b := g.loggedIn()
	g.store.down.Store(true)
	a := b.send(g.request("GET", "/oauth2/frontchannel_logout?"+g.frontchannelQuery(), serverFrame...), false)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Set-Cookie") != "" {
		t.Errorf("got status %d, Set-Cookie %q; want 503 and the cookie kept", a.status, a.header.Get("Set-Cookie"))
	}
	g.store.down.Store(false)
	b.mustKeep("store down")
}

// TestFrontchannelLogoutIsOffByDefault: unless configured, and needs a server that names sessions.
func TestFrontchannelLogoutIsOffByDefault(t *testing.T) {
	g := newRig(t)
	b := g.loggedIn()
	if a := b.send(g.request("GET", "/oauth2/frontchannel_logout?"+g.frontchannelQuery(), serverFrame...), false); a.status != 404 {
		t.Errorf("got status %d, want 404", a.status)
	}
	b.mustKeep("off")
	c := newRig(t, plainOAuth).handler.Config
	c.FrontchannelLogout = true
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "frontchannel_logout needs") {
		t.Errorf("plain OAuth: got error %v, want one that names the option", err)
	}
}

func TestClientMetadataHasTheFrontchannelLogout(t *testing.T) {
	for _, on := range []bool{false, true} {
		g := newRig(t, func(s *setup) { s.handler.FrontchannelLogout = on })
		var got map[string]any
		if err := json.Unmarshal([]byte(g.get("/oauth2/client.json").body), &got); err != nil {
			t.Fatal(err)
		}
		uri, needsSID := got["frontchannel_logout_uri"], got["frontchannel_logout_session_required"]
		if on && (uri != appOrigin+"/oauth2/frontchannel_logout" || needsSID != true) || !on && (uri != nil || needsSID != nil) {
			t.Errorf("on %v: got %v, %v; want the endpoint with the sid exactly if on", on, uri, needsSID)
		}
	}
}
