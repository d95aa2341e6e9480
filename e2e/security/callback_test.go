package security

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS12BrokenCallbackIsRefused: an incomplete callback is refused without a token
// request.
func TestS12BrokenCallbackIsRefused(t *testing.T) {
	w := shared(t)
	calls := w.tokenRequests()
	for _, tc := range []struct{ name, query string }{
		{"nothing", ""},
		{"only code", "code=x"},
		{"only state", "state=x"},
		{"empty", "state=&code=&error=&iss="},
		{"64 KiB of state", "code=x&state=" + strings.Repeat("a", 64<<10)},
		{"error without state", "error=access_denied"},
		{"error with some state", "error=server_error&state=x"},
		{"broken encoding", "code=%zz&state=%"},
		{"semicolons", "code=x;state=y"},
		{"10,000 parameters", strings.Repeat("a=b&", 10_000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp := w.rawGet(t, callback+"?"+tc.query, navigationHeaders...)
			if resp.Status < 400 || resp.Status > 499 || resp.Header.Get("Set-Cookie") != "" {
				t.Errorf("got %d %v, want a 4xx status without cookies", resp.Status, resp.Header)
			}
		})
	}
	t.Run("state of a login and nothing else", func(t *testing.T) {
		b := w.browser()
		state := b.start(t, "/x").Query().Get("state")
		if resp := b.nav(t, callback+"?state="+state); resp.Status != http.StatusBadRequest {
			t.Errorf("got %v, want 400", resp)
		}
	})
	if n := w.tokenRequests(); n != calls {
		t.Errorf("got %d token requests, want none", n-calls)
	}
}

// TestS19CallbackFromAnotherIssuerIsRefused: a callback with a foreign iss is refused. So
// is a callback without iss if the server has announced that it always sends one (RFC
// 9207).
func TestS19CallbackFromAnotherIssuerIsRefused(t *testing.T) {
	w := newWorld(t, plan{knobs: func(k *fakeas.Knobs) { k.IssParameter = true }})
	for _, tc := range []struct {
		name string
		edit func(url.Values)
	}{
		{"another server", func(q url.Values) { q.Set("iss", w.other.URL) }},
		{"missing", func(q url.Values) { q.Del("iss") }},
		{"empty", func(q url.Values) { q.Set("iss", "") }},
		{"slash", func(q url.Values) { q.Set("iss", w.idp.URL+"/") }},
		{"upper case", func(q url.Values) { q.Set("iss", strings.ToUpper(w.idp.URL)) }},
		{"error of another server", func(q url.Values) { q.Del("code"); q.Set("iss", w.other.URL); q.Set("error", "server_error") }},
		{"error without", func(q url.Values) { q.Del("code"); q.Del("iss"); q.Set("error", "server_error") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := w.browser()
			answer := b.approve(t, b.start(t, "/x"))
			q := answer.Query()
			if q.Get("iss") != w.idp.URL {
				t.Fatal("the authorization server sent no iss")
			}
			tc.edit(q)
			calls := w.tokenRequests()
			resp := b.nav(t, callback+"?"+q.Encode())
			if resp.Status < 400 || w.tokenRequests() != calls || b.session() != "" {
				t.Errorf("got %v and %d token requests, want an error and none", resp, w.tokenRequests()-calls)
			}
		})
	}
}

// TestS19UnannouncedIssuerMustMatch: a server that does not announce iss may omit it, but not
// send a wrong one.
func TestS19UnannouncedIssuerMustMatch(t *testing.T) {
	w := shared(t)
	b := w.browser()
	answer := b.approve(t, b.start(t, "/x"))
	calls := w.tokenRequests()
	resp := b.nav(t, answer.String()+"&iss="+url.QueryEscape(w.other.URL))
	if resp.Status < 400 || w.tokenRequests() != calls {
		t.Errorf("got %v and %d token requests, want an error and none", resp, w.tokenRequests()-calls)
	}
}

// TestS20RepeatedParameterIsRefused: a request with a repeated parameter is ambiguous and
// is refused.
func TestS20RepeatedParameterIsRefused(t *testing.T) {
	w := shared(t)
	for _, name := range []string{"code", "state", "iss", "error", "error_description"} {
		t.Run(name, func(t *testing.T) {
			b := w.browser()
			q := b.approve(t, b.start(t, "/x")).Query()
			q[name] = append(q[name], "x", "x")[:2]
			calls := w.tokenRequests()
			resp := b.nav(t, callback+"?"+q.Encode())
			if resp.Status != http.StatusBadRequest || w.tokenRequests() != calls {
				t.Errorf("got %v and %d token requests, want 400 and none", resp, w.tokenRequests()-calls)
			}
		})
	}
	t.Run("code in query and body", func(t *testing.T) {
		b := w.browser()
		answer := b.approve(t, b.start(t, "/x"))
		calls := w.tokenRequests()
		form := append([]string{"Content-Type: application/x-www-form-urlencoded"}, navigationHeaders...)
		// The endpoint accepts no POST.
		if resp := b.send(t, http.MethodPost, answer.String(), "code=other", form...); resp.Status != http.StatusMethodNotAllowed || w.tokenRequests() != calls {
			t.Errorf("POST: got %v, want 405", resp)
		}
		// The body of a GET is ignored.
		w.idp.ClearLog()
		if resp := b.send(t, http.MethodGet, answer.String(), "code=other", form...); resp.Status != http.StatusSeeOther {
			t.Errorf("GET with a body: got %v, want 303", resp)
		}
		if got := lastOf(t, w.idp.Log(fakeas.EndpointToken)).Form.Get("code"); got != answer.Query().Get("code") {
			t.Error("the site redeemed the code of the body")
		}
	})
	t.Run("login", func(t *testing.T) {
		for _, name := range []string{"return_to", "prompt", "login_hint", "iss"} {
			if resp := w.browser().nav(t, login+"?"+name+"=login&"+name+"=none"); resp.Status != http.StatusBadRequest {
				t.Errorf("%s twice: got %v, want 400", name, resp)
			}
		}
	})
	t.Run("logout_token", func(t *testing.T) {
		resp := w.browser().send(t, http.MethodPost, backchannel, "logout_token=a.b.c&logout_token=d.e.f", "Content-Type: application/x-www-form-urlencoded")
		if resp.Status != http.StatusBadRequest {
			t.Errorf("got %v, want 400", resp)
		}
	})
}

// TestS25OnlyNavigationsStartALogin: any other request gets 401, no redirect and no login
// cookie.
func TestS25OnlyNavigationsStartALogin(t *testing.T) {
	w := shared(t)
	for name, lines := range map[string][]string{
		"script":         scriptHeaders,
		"JSON":           {"Accept: application/json"},
		"XMLHttpRequest": {"X-Requested-With: XMLHttpRequest", "Accept: text/html, */*; q=0.01"},
		"image":          {"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Accept: image/*,text/html"},
		"only dest":      {"Sec-Fetch-Dest: image", "Accept: text/html"},
		"frame":          {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html"},
		"object":         {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: object", "Accept: text/html"},
		"WebSocket":      {"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Accept: text/html"},
		"gRPC":           {"Content-Type: application/grpc", "TE: trailers"},
		"anything":       {"Accept: */*"},
		"nothing":        nil,
		"prefetch":       append([]string{"Sec-Purpose: prefetch"}, navigationHeaders...),
		"event stream":   {"Accept: text/event-stream"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/x", login} {
				resp := w.raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+w.host+"\r\n"+strings.Join(append(slices.Clone(lines), "", ""), "\r\n"))
				if resp.Status != http.StatusUnauthorized || resp.Header.Get("Location") != "" || resp.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s: got %d %v, want 401 without Location and cookies", path, resp.Status, resp.Header)
				}
				if resp.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: got %v, want no-store", path, resp.Header)
				}
				// A request that accepts HTML gets the site's error page.
				html := slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "text/html") })
				if !html && !strings.Contains(string(resp.Body), `"login_url"`) || html && resp.Header.Get("Content-Type") == "application/problem+json" {
					t.Errorf("%s: got %v %s, want a page, or a login_url", path, resp.Header, resp.Body)
				}
			}
		})
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY", "get"} {
		t.Run(method, func(t *testing.T) {
			resp := w.raw(t, w.request(method+" /x", append([]string{"Content-Length: 0"}, navigationHeaders...)...))
			if resp.Status != http.StatusUnauthorized || resp.Header.Get("Location") != "" || resp.Header.Get("Set-Cookie") != "" {
				t.Errorf("got %d %v, want 401 without Location and cookies", resp.Status, resp.Header)
			}
		})
	}
}

// TestS26OwnAnswersAreNotFramed: no frame may show one of the module's own answers.
func TestS26OwnAnswersAreNotFramed(t *testing.T) {
	w := sharedBare(t)
	b := w.browser()
	start := b.nav(t, "/x")
	answer := b.approve(t, start.Location())
	post := []string{"Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin"}
	cross := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: cross-site"}
	headers := map[string]http.Header{
		"start of a login":     start.Header,
		"end of a login":       b.nav(t, answer.String()).Header,
		"broken callback":      b.nav(t, callback+"?error=x").Header,
		"second parameter":     w.browser().nav(t, callback+"?code=1&code=2").Header,
		"cross-site POST":      b.send(t, http.MethodPost, "/x", "", cross...).Header,
		"unknown endpoint":     b.nav(t, prefix+"/x").Header,
		"wrong method":         b.send(t, http.MethodPost, login, "", post...).Header,
		"session":              b.xhr(t, http.MethodGet, sessionInfo).Header,
		"logout page":          b.nav(t, logout).Header,
		"logout":               b.send(t, http.MethodPost, logout, "", post...).Header,
		"logged out":           b.nav(t, logoutCallback).Header,
		"401":                  w.browser().xhr(t, http.MethodGet, "/x").Header,
		"401 for a navigation": w.browser().send(t, http.MethodPost, "/x", "", post...).Header,
		"back-channel":         b.send(t, http.MethodPost, backchannel, "logout_token=x", post...).Header,
	}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		header := headers[name]
		if !strings.Contains(header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s may be framed: %v", name, header)
		}
		// The same answers are not cached (S80).
		if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be cached or sniffed: %v", name, header)
		}
	}
	t.Run("login in a frame", func(t *testing.T) {
		for _, dest := range []string{"iframe", "frame", "embed", "object", "fencedframe"} {
			resp := w.browser().send(t, http.MethodGet, "/x", "", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: "+dest, "Accept: text/html")
			if resp.Status != http.StatusUnauthorized || resp.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: got %v, want 401 without cookies", dest, resp)
			}
		}
	})
}

// TestS27CallbackAcceptsOnlyNavigationGET: only a GET in the browser's window ends a
// login. The callback accepts a code and no tokens.
func TestS27CallbackAcceptsOnlyNavigationGET(t *testing.T) {
	w := shared(t)
	b := w.browser()
	answer := b.approve(t, b.start(t, "/x"))
	state := answer.Query().Get("state")
	calls := w.tokenRequests()
	for _, tc := range []struct {
		name, method, path, body string
		lines                    []string
		want                     int
	}{
		{"form post", http.MethodPost, callback, answer.RawQuery, append([]string{"Content-Type: application/x-www-form-urlencoded"}, navigationHeaders...), http.StatusMethodNotAllowed},
		{"HEAD", http.MethodHead, answer.RequestURI(), "", navigationHeaders, http.StatusMethodNotAllowed},
		{"OPTIONS", http.MethodOptions, answer.RequestURI(), "", scriptHeaders, http.StatusMethodNotAllowed},
		{"PUT", http.MethodPut, answer.RequestURI(), "", navigationHeaders, http.StatusMethodNotAllowed},
		{"tokens in the query", http.MethodGet, callback + "?state=" + state + "&id_token=x&access_token=y&token_type=Bearer", "", navigationHeaders, http.StatusBadRequest},
		{"prefetch", http.MethodGet, answer.RequestURI(), "", append([]string{"Sec-Purpose: prefetch;prerender"}, navigationHeaders...), http.StatusBadRequest},
		{"legacy prefetch", http.MethodGet, answer.RequestURI(), "", append([]string{"Purpose: prefetch"}, navigationHeaders...), http.StatusBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp := b.send(t, tc.method, tc.path, tc.body, tc.lines...)
			if resp.Status != tc.want || w.tokenRequests() != calls || b.session() != "" {
				t.Errorf("got %v and %d token requests, want %d and none", resp, w.tokenRequests()-calls, tc.want)
			}
		})
	}
	// None of these requests has used up the code.
	if resp := b.nav(t, answer.String()); resp.Status != http.StatusSeeOther || b.session() == "" {
		t.Errorf("callback in the window: got %v, want 303 and a session", resp)
	}
}

// TestS29ThirdPartyLoginDecidesNothing: another site may send a browser to the login
// endpoint. It chooses neither the server nor a parameter of the authorization request,
// except the documented `prompt` and `login_hint`, and it ends no session.
func TestS29ThirdPartyLoginDecidesNothing(t *testing.T) {
	w := shared(t)
	b := w.browser()
	b.login(t, "/")
	session := b.session()
	cross := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: cross-site"}
	for _, iss := range []string{"https://evil.test", w.attacker.URL, w.other.URL, w.idp.URL + "/"} {
		q := url.Values{"iss": {iss}, "login_hint": {"x"}, "target_link_uri": {"//evil.test"}}
		if resp := b.send(t, http.MethodGet, login+"?"+q.Encode(), "", cross...); resp.Status != http.StatusBadRequest {
			t.Errorf("iss %s: got %v, want 400", iss, resp)
		}
		if resp := b.send(t, http.MethodPost, login, q.Encode(), append([]string{"Content-Type: application/x-www-form-urlencoded"}, cross...)...); resp.Status != http.StatusBadRequest {
			t.Errorf("POST with iss %s: got %v, want 400", iss, resp)
		}
	}
	chosen := url.Values{
		"scope": {"admin"}, "redirect_uri": {"https://evil.test"}, "client_id": {"evil"}, "response_type": {"token"}, "state": {"evil"},
		"nonce": {"evil"}, "code_challenge": {"evil"}, "code_challenge_method": {"plain"}, "response_mode": {"fragment"}, "resource": {"https://evil.test"},
		"audience": {"evil"}, "request": {"evil"}, "request_uri": {w.attacker.URL}, "acr_values": {"evil"}, "target_link_uri": {"//evil.test"},
		"max_age": {"0"}, "claims": {"evil"}, "registration": {w.attacker.URL}, "id_token_hint": {"evil"},
	}
	resp := b.send(t, http.MethodGet, login+"?prompt=none&login_hint=x&iss="+url.QueryEscape(w.idp.URL)+"&"+chosen.Encode(), "", cross...)
	to := resp.Location()
	if !w.isAuthorization(to) {
		t.Fatalf("got %v, want the start of a login", resp)
	}
	for name, values := range chosen {
		if got := to.Query()[name]; slices.Contains(got, values[0]) || len(got) > 1 {
			t.Errorf("the authorization request has %s=%s of the link", name, got)
		}
	}
	if resp := b.nav(t, login+"?prompt=evil"); resp.Status != http.StatusBadRequest {
		t.Errorf("unknown prompt: got %v, want 400", resp)
	}
	if b.session() != session {
		t.Error("the start of a login changed the session cookie")
	}
	b.checkSession(t)
}
