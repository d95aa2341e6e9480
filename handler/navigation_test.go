package handler

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	acceptFirefox   = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	acceptChrome    = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
	acceptSafariImg = "Accept: image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
)

// clientRequests has the headers of real clients.
var clientRequests = []struct {
	name   string
	login  bool
	header string // separated by |
}{
	{"Chrome, typed", true, "Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate|Sec-Fetch-User: ?1|Sec-Fetch-Dest: document|Upgrade-Insecure-Requests: 1|" + acceptChrome},
	{"Chrome, link from another site", true, "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-User: ?1|Sec-Fetch-Dest: document|" + acceptChrome},
	{"Firefox, reload", true, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document|Priority: u=0, i|" + acceptFirefox},
	{"Safari 17", true, "Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document|" + acceptFirefox},
	{"Safari 15, without Sec-Fetch", true, acceptFirefox},
	{"Internet Explorer 11", true, "Accept: text/html, application/xhtml+xml, image/jxr, */*"},
	{"w3m", true, "Accept: text/html, text/*;q=0.5, image/*"},
	{"service worker, navigation preload", true, "Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document|Service-Worker-Navigation-Preload: true|" + acceptChrome},
	{"service worker passes a navigation on, Chrome", true, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|" + acceptChrome},
	{"service worker passes a navigation on, Firefox", true, "Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|" + acceptFirefox},
	{"service worker passes a link of another site on", true, "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Accept: text/HTML;q=0.9, */*"},

	{"fetch", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Accept: */*"},
	{"fetch that wants HTML (htmx, Turbo)", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Accept: text/html"},
	{"fetch without CORS", false, "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: empty|Accept: */*"},
	{"XMLHttpRequest of jQuery, old Safari", false, "X-Requested-With: XMLHttpRequest|Accept: text/html, */*; q=0.01"},
	{"XMLHttpRequest, old Safari", false, "Accept: */*"},
	{"JSON", false, "Accept: application/json"},
	{"axios", false, "Accept: application/json, text/plain, */*"},
	{"image", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: image|Accept: image/avif,image/webp,*/*;q=0.8"},
	{"image, old Safari", false, acceptSafariImg},
	{"favicon", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: image|Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"},
	{"script", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: script|Accept: */*"},
	{"module", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: script|Accept: */*"},
	{"style", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: style|Accept: text/css,*/*;q=0.1"},
	{"manifest", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: manifest|Accept: */*"},
	{"service worker script", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: same-origin|Sec-Fetch-Dest: serviceworker|Service-Worker: script|Accept: */*"},
	{"iframe", false, "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe|" + acceptChrome},
	{"frame", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: frame|" + acceptChrome},
	{"object", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: object|" + acceptChrome},
	{"embed", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: embed|" + acceptChrome},
	{"fenced frame", false, "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: fencedframe|" + acceptChrome},
	{"navigate without a window or HTML", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Accept: */*"},
	{"navigate that refuses HTML", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Accept: text/html;q=0.0, application/json"},
	{"service worker passes a prefetch on", false, "Sec-Purpose: prefetch|Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|" + acceptChrome},
	{"service worker passes a frame on", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe|" + acceptChrome},
	{"mode alone", false, "Sec-Fetch-Mode: navigate|" + acceptChrome},
	{"Chrome prefetch", false, "Sec-Purpose: prefetch|Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document|" + acceptChrome},
	{"Chrome prerender", false, "Sec-Purpose: prefetch;prerender|Purpose: prefetch|Sec-Fetch-Site: none|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document|" + acceptChrome},
	{"Safari prefetch", false, "Purpose: prefetch|" + acceptFirefox},
	{"link rel=prefetch", false, "Sec-Purpose: prefetch|Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: empty|Accept: */*"},
	{"WebSocket", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: websocket|Sec-Fetch-Dest: empty|Upgrade: websocket|Connection: Upgrade|Sec-Websocket-Key: x|Sec-Websocket-Version: 13"},
	{"WebSocket, old Safari", false, "Upgrade: websocket|Connection: Upgrade|" + acceptFirefox},
	{"EventSource", false, "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Accept: text/event-stream"},
	{"EventSource, old Safari", false, "Accept: text/event-stream"},
	{"curl", false, "Accept: */*|User-Agent: curl/8.5.0"},
	{"no Accept at all", false, "User-Agent: kube-probe/1.29"},
	{"load balancer", false, "User-Agent: ELB-HealthChecker/2.0|Accept: */*"},
	{"gRPC", false, "Content-Type: application/grpc|Te: trailers"},
	{"own bearer", false, "Authorization: Bearer EVIL|Accept: */*"},
	{"lookalike types", false, "Accept: text/html5, application/text/html, x-text/html"},
}

// namesHTML matches headers whose Accept names text/html.
var namesHTML = regexp.MustCompile(`(?i)(^|\|)accept: ([^|]*,\s*)?text/html(;q=0\.[1-9])?\s*(,|\||$)`)

// wantPage fails the test unless an answer is a page with a way out.
func wantPage(t *testing.T, name string, a *answer) {
	t.Helper()
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("%s: %s, status %d: got %s: %.200s, want a page", name, a.uri, a.status, a.header.Get("Content-Type"), a.body)
	}
	if !strings.HasPrefix(a.uri, "HEAD ") && !strings.Contains(a.body, "<a href=") && !strings.Contains(a.body, "<button>") {
		t.Errorf("%s: %s, status %d: got page %s, want a link or a button", name, a.uri, a.status, a.body)
	}
}

func TestOnlyNavigationsStartALogin(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, tt := range clientRequests {
		for _, method := range []string{"GET", "HEAD"} {
			a := g.do(g.request(method, "/admin?x=1", strings.Split(tt.header, "|")...))
			if a.relayed != 0 {
				t.Errorf("%s: got a call of the app, want none", tt.name)
			}
			if a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %s: got a cacheable answer, want no-store", tt.name, method)
			}
			switch {
			case tt.login:
				wantNewLogin(t, g, a)
			case a.status != 401 || a.location() != "" || a.header["Set-Cookie"] != nil || a.header.Get("WWW-Authenticate") == "":
				t.Errorf("%s: %s: got status %d, Location %q, cookies %q, want a login for navigations only", tt.name, method, a.status, a.location(), a.header["Set-Cookie"])
			case namesHTML.MatchString(tt.header):
				wantPage(t, tt.name, a)
				if method == "GET" && (!strings.Contains(a.body, `href="/oauth2/login?return_to=`) || !strings.Contains(a.body, `id="login_url"`)) {
					t.Errorf("%s: got page %s, want a link to the login", tt.name, a.body)
				}
			default:
				if p := a.problem(t); p.LoginURL != "/oauth2/login" || p.Code != "login_required" || p.Status != 401 {
					t.Errorf("%s: got problem %+v, want login_required", tt.name, p)
				}
			}
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "FOO", "get", "Head"} {
			a := g.do(g.request(method, "/admin", strings.Split(tt.header, "|")...))
			if a.status != 401 || a.relayed != 0 || a.location() != "" || a.header["Set-Cookie"] != nil {
				t.Errorf("%s: %s: got status %d, want 401, Location %q", tt.name, method, a.status, a.location())
			}
		}
	}
}

// TestLoginEndpointAcceptsNavigationsOnly: a script gets no login cookie.
func TestLoginEndpointAcceptsNavigationsOnly(t *testing.T) {
	g := newRig(t, plainOAuth)
	for _, tt := range clientRequests {
		a := g.get("/oauth2/login", strings.Split(tt.header, "|")...)
		if tt.login != (a.status == 302) || !tt.login && a.header["Set-Cookie"] != nil {
			t.Errorf("%s: got status %d, cookies %q, want a login for navigations only", tt.name, a.status, a.header["Set-Cookie"])
		}
	}
}

// TestBodyWithoutASessionIsNotRead: it may have gigabytes.
func TestBodyWithoutASessionIsNotRead(t *testing.T) {
	g := newRig(t, plainOAuth)
	r := g.request("POST", "/upload", script...)
	r.Body = unreadable{t}
	if a := g.do(r); a.status != 401 {
		t.Errorf("got status %d, want 401", a.status)
	}
}

type unreadable struct{ t *testing.T }

func (b unreadable) Read([]byte) (int, error) {
	b.t.Error("got a read of the body, want none")
	return 0, http.ErrBodyReadAfterClose
}

func (unreadable) Close() error { return nil }

// TestFormPostWithoutASessionGetsAPage: the form is lost, and a page says so
// instead of a problem document.
func TestFormPostWithoutASessionGetsAPage(t *testing.T) {
	g := newRig(t, plainOAuth)
	for name, header := range map[string][]string{"with Sec-Fetch": formPost, "without": {acceptFirefox, "Origin: " + appOrigin}} {
		a := g.post("/form", header...)
		if a.status != 401 || a.location() != "" || a.relayed != 0 {
			t.Errorf("%s: got status %d, want 401 to %q", name, a.status, a.location())
		}
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "/oauth2/login") {
			t.Errorf("%s: got %s: %s, want a page that explains the lost form", name, a.header.Get("Content-Type"), a.body)
		}
	}
}

// TestErrorsArePagesForReadersOfHTML, and problem documents for all others, whatever
// the error and the method.
func TestErrorsArePagesForReadersOfHTML(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.Authorization = RejectAuthorization })
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	for _, request := range [][]string{
		{"GET", "/"}, {"POST", "/"}, {"DELETE", "/x"}, {"TRACE", "/", cookie}, {"GET", "/oauth2/unknown"}, {"POST", "/oauth2/session"},
		{"POST", "/oauth2/session/refresh"}, {"PUT", "/", cookie, "Sec-Fetch-Site: cross-site"}, {"POST", "/oauth2/logout", "Sec-Fetch-Site: cross-site"},
		{"GET", "/", cookie, "Authorization: Bearer EVIL"}, {"POST", "/", cookie, "Early-Data: 1"}, {"GET", "/oauth2/callback"},
		{"GET", "/oauth2/callback?code=x&state=y"}, {"GET", "/oauth2/callback", "Sec-Purpose: prefetch"},
	} {
		header := request[2:]
		for _, accept := range []string{acceptHTML, "Accept: text/html", "accept-is-not-this: 1|Accept: application/json, TEXT/HTML ;charset=utf-8"} {
			for _, fetch := range [][]string{nil, {"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}} {
				a := g.do(g.request(request[0], request[1], slices.Concat(header, fetch, strings.Split(accept, "|"))...))
				if a.status >= 400 {
					wantPage(t, strings.Join(fetch, " "), a)
				} else if a.status != http.StatusFound {
					t.Errorf("%s: got status %d, want an error or a login", a.uri, a.status)
				}
			}
		}
		for _, accept := range []string{"Accept: */*", "Accept: application/json", "X-No-Accept: 1", "Accept: text/html;q=0, */*"} {
			a := g.do(g.request(request[0], request[1], slices.Concat(header, []string{accept})...))
			if a.problem(t).Status != a.status {
				t.Errorf("%s, %s: got status %d: %s, want the same status in the document", a.uri, accept, a.status, a.body)
			}
		}
	}
}

// TestServiceWorkerPassesEveryStepOfALoginOn: the worker of the app answers each
// navigation with fetch(event.request), so the browser goes through login, error
// pages and logout as without it.
func TestServiceWorkerPassesEveryStepOfALoginOn(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	b.worker = true
	b.mustReach("/wanted?x=1")
	b.wantAppAt(b.open("/oauth2/login?return_to=/other"), "/other")
	wantPage(t, "unknown endpoint", b.open("/oauth2/unknown"))
	r := g.request(http.MethodPost, "/oauth2/logout", formPost...)
	r.Header.Set("Sec-Fetch-Dest", "empty")
	if a := b.send(r, false); a.status != http.StatusSeeOther || b.jar.get(sessionCookie) != nil {
		t.Errorf("logout: got status %d: %s, want 303 and no session", a.status, a.body)
	}
	r = g.request(http.MethodPost, "/form", formPost...)
	r.Header.Set("Sec-Fetch-Dest", "empty")
	a := b.send(r, false)
	wantPage(t, "form", a)
	if !strings.Contains(a.body, "what you sent was not passed on") {
		t.Errorf("got page %s, want one that explains the lost form", a.body)
	}
	b.mustReach("/")
}

// TestPageOfAPartLeadsToTheWholePage: a login in place of a frame or of a fragment
// must return to the page around it.
func TestPageOfAPartLeadsToTheWholePage(t *testing.T) {
	g := newRig(t, plainOAuth)
	for referer, want := range map[string]string{
		appOrigin + "/board?tab=2": "%2Fboard%3Ftab%3D2", "https://other.test/x": "%2F", "": "%2F", "//evil.test/": "%2F",
	} {
		a := g.get("/part", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: text/html", "Referer: "+referer)
		if !strings.Contains(a.body, `<a href="/oauth2/login?return_to=`+want+`" id="login_url">`) {
			t.Errorf("Referer %q: got page %s, want a login that leads to %s", referer, a.body, want)
		}
	}
}

// TestAnswerToAFormDoesNotReload: the browser would request the form's target with
// GET.
func TestAnswerToAFormDoesNotReload(t *testing.T) {
	g := newRig(t, plainOAuth)
	cookie := "Cookie: " + sessionCookie + "=" + g.session("")
	g.store.down.Store(true)
	a := g.post("/form", append(slices.Clone(formPost), cookie, "Referer: "+appOrigin+"/edit?id=1")...)
	if a.status != 503 || strings.Contains(a.body, `http-equiv="refresh"`) || !strings.Contains(a.body, `<a href="/edit?id=1">`) {
		t.Errorf("got status %d: %s, want 503 with a link to the page of the form", a.status, a.body)
	}
}
