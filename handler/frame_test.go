package handler

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const portal = "https://portal.test"

// inFrames is an option: the site is used in frames of the portal.
func inFrames(s *setup) {
	s.handler.Cookie = Cookie{SameSite: "none", Partitioned: true}
	s.handler.TrustedOrigins = []string{portal}
}

// frameRequests has the headers of requests that belong to a frame.
var frameRequests = map[string]struct {
	method, header string
	login          bool // with partitioned cookies
}{
	"iframe":                     {"GET", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe|" + acceptChrome, true},
	"iframe, clicked link":       {"GET", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-User: ?1|Sec-Fetch-Dest: iframe|" + acceptFirefox, true},
	"frame":                      {"GET", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: frame|" + acceptChrome, true},
	"form in an iframe":          {"POST", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe|" + acceptChrome, false},
	"iframe, prefetched":         {"GET", "Sec-Purpose: prefetch|Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe|" + acceptChrome, false},
	"iframe, without the mode":   {"GET", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: iframe|" + acceptChrome, false},
	"object":                     {"GET", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: object|" + acceptChrome, false},
	"fenced frame":               {"GET", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: fencedframe|" + acceptChrome, false},
	"fetch of a page in a frame": {"GET", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Accept: */*", false},
}

func TestFrameBeginsALoginOnlyWithPartitionedCookies(t *testing.T) {
	for name, cookie := range map[string]Cookie{
		"default": {}, "strict": {SameSite: "strict"}, "none": {SameSite: "none"}, "partitioned": {SameSite: "none", Partitioned: true},
	} {
		g := newRig(t, plainOAuth, func(s *setup) { s.handler.Cookie = cookie })
		for request, tt := range frameRequests {
			for _, path := range []string{"/admin?x=1", "/oauth2/login"} {
				if tt.method == "POST" && path == "/oauth2/login" {
					continue
				}
				a := g.do(g.request(tt.method, path, strings.Split(tt.header, "|")...))
				if tt.login && cookie.Partitioned {
					wantNewLogin(t, g, a)
				} else if a.status != 401 || a.location() != "" || a.header["Set-Cookie"] != nil || a.relayed != 0 {
					t.Errorf("%s cookie, %s: %s: got status %d, Location %q, cookies %q, want 401", name, request, a.uri, a.status, a.location(), a.header["Set-Cookie"])
				}
			}
		}
	}
}

func TestLoginAndLogoutInAFrame(t *testing.T) {
	g := newRig(t, inFrames)
	b := g.browser()
	b.frame = true
	b.wantAppAt(b.follow("/wanted?x=1"), "/wanted?x=1")
	for _, c := range b.jar.cookies {
		if !c.Partitioned || c.SameSite != http.SameSiteNoneMode {
			t.Errorf("got cookie %v, want it partitioned and SameSite=None", c)
		}
	}
	header := slices.Clone(formPost)
	header[slices.Index(header, "Sec-Fetch-Dest: document")] = "Sec-Fetch-Dest: iframe"
	a := b.send(b.request("POST", "/oauth2/logout", header...), false)
	if a.status != http.StatusSeeOther || !strings.HasPrefix(a.location(), g.as.URL+"/end_session") {
		t.Errorf("logout: got status %d, Location %q: %s, want the server's logout", a.status, a.location(), a.body)
	}
	if a := b.send(b.request("POST", "/form", header...), false); a.status != 401 || a.relayed != 0 {
		t.Errorf("form without a session: got status %d, want 401", a.status)
	} else {
		wantPage(t, "form in a frame", a)
	}
	b.wantAppAt(b.follow("/again"), "/again")
}

// A refused login ends on a page, which a trusted origin may show in its frame.
func TestLoginThatIsRefusedInAFrameLeavesAWayOut(t *testing.T) {
	g := newRig(t, inFrames)
	b := g.browser()
	b.frame = true
	g.as.Fail(fakeas.OAuthError(accessDenied).At(fakeas.EndpointAuthorize))
	a := b.follow("/wanted")
	wantLoginLink(t, a, 403, accessDenied)
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'self' "+portal+";") {
		t.Errorf("got Content-Security-Policy %q, want the portal in frame-ancestors", csp)
	}
}

// Only partitioned cookies let trusted origins frame the Handler's pages. Every other
// combination of the options forbids it to all.
func TestOnlyTrustedOriginsMayFramePages(t *testing.T) {
	partitioned := Cookie{SameSite: "none", Partitioned: true}
	for name, tt := range map[string]struct {
		cookie  Cookie
		trusted []string
		want    string // frame-ancestors; empty: 'none'
	}{
		"default":                      {Cookie{}, nil, ""},
		"trusted origins alone":        {Cookie{}, []string{portal}, ""},
		"none and trusted origins":     {Cookie{SameSite: "none"}, []string{portal}, ""},
		"partitioned alone":            {partitioned, nil, ""},
		"partitioned and one":          {partitioned, []string{"https://Portal.test:443"}, "'self' " + portal},
		"partitioned and two":          {partitioned, []string{portal, "http://localhost:8081"}, "'self' " + portal + " http://localhost:8081"},
		"an address CSP does not know": {partitioned, []string{"http://[::1]:8081"}, ""},
		"a name with a semicolon":      {partitioned, []string{"https://a;b.test", portal}, "'self' " + portal},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, plainOAuth, func(s *setup) { s.handler.Cookie, s.handler.TrustedOrigins = tt.cookie, tt.trusted })
			want, options := "'none'", []string{"DENY"}
			if tt.want != "" {
				want, options = tt.want, nil
			}
			for _, a := range ownAnswers(t, g) {
				csp := a.header.Get("Content-Security-Policy")
				if !strings.Contains(csp, "; frame-ancestors "+want+"; base-uri 'none'") || !slices.Equal(a.header.Values("X-Frame-Options"), options) {
					t.Errorf("%s: got %q and X-Frame-Options %q, want frame-ancestors %s", a.uri, csp, a.header.Values("X-Frame-Options"), want)
				}
			}
		})
	}
}
