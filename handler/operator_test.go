package handler

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// pushTo makes the client push its requests to an endpoint with a fixed answer. A
// status of 0 breaks the connection.
func pushTo(t *testing.T, status int, contentType, body string) func(*setup) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return func(s *setup) { s.oauth.Endpoints.PushedAuthorizationRequest = server.URL + "/par" }
}

// loginTrouble is a failure that keeps a login from beginning or from ending.
type loginTrouble struct {
	option func(*testing.T) func(*setup)
	server func(*authServer)
}

func pushed(status int, contentType, body string) loginTrouble {
	return loginTrouble{option: func(t *testing.T) func(*setup) { return pushTo(t, status, contentType, body) }}
}

func knob(set func(*fakeas.Knobs)) loginTrouble {
	return loginTrouble{server: func(as *authServer) { as.Set(set) }}
}

func failing(f fakeas.Fault) loginTrouble {
	return loginTrouble{server: func(as *authServer) { as.Fail(f.Repeat(-1)) }}
}

func (l loginTrouble) open(t *testing.T) *answer {
	t.Helper()
	var options []func(*setup)
	if l.option != nil {
		options = append(options, l.option(t))
	}
	g := newRig(t, options...)
	if l.server != nil {
		l.server(g.as)
	}
	b := g.browser()
	a := b.open("/wanted")
	if b.jar.get(sessionCookie) != nil || g.app.count() != 0 {
		t.Errorf("got a session or a call of the app after status %d, want none", a.status)
	}
	if lines := g.log.lines("request failed"); len(lines) != 1 {
		t.Errorf("got log lines %q, want the cause once", lines)
	}
	return a
}

const jsonType = "application/json"

// TestPermanentFailureNamesTheOperator: the page does not reload, since that cannot
// help.
func TestPermanentFailureNamesTheOperator(t *testing.T) {
	page := fakeas.Answer(200, "text/html", "<!doctype html><title>Our portal</title>")
	for name, trouble := range map[string]loginTrouble{
		"pushed, invalid_client":       pushed(401, jsonType, `{"error":"invalid_client"}`),
		"pushed, invalid_request":      pushed(400, jsonType, `{"error":"invalid_request","error_description":"redirect_uri"}`),
		"pushed, invalid_redirect_uri": pushed(400, jsonType, `{"error":"invalid_redirect_uri"}`),
		"pushed, 404":                  pushed(404, "text/html", "<html>"),
		"pushed, 405":                  pushed(405, "", ""),
		"pushed, redirect":             pushed(302, "", ""),
		"pushed, no request_uri":       pushed(201, jsonType, `{}`),
		"no authorization endpoint":    knob(func(k *fakeas.Knobs) { k.Metadata.Omit = []string{"authorization_endpoint"} }),
		"no token endpoint":            knob(func(k *fakeas.Knobs) { k.Metadata.Omit = []string{"token_endpoint"} }),
		"no key set":                   knob(func(k *fakeas.Knobs) { k.Metadata.Omit = []string{"jwks_uri"} }),
		"endpoint that is no URL": knob(func(k *fakeas.Knobs) {
			k.Metadata.Set = map[string]any{"authorization_endpoint": "http://idp.test/authorize"}
		}),
		"another issuer":                 knob(func(k *fakeas.Knobs) { k.Issuer = "https://idp.test/realms/other" }),
		"issuer with a slash":            {server: func(as *authServer) { as.Set(func(k *fakeas.Knobs) { k.Issuer = as.URL + "/" }) }},
		"unknown realm":                  failing(fakeas.Answer(404, jsonType, `{"error":"Realm does not exist"}`).At(fakeas.EndpointDiscovery)),
		"metadata forbidden":             failing(fakeas.Answer(403, "text/html", "<html>").At(fakeas.EndpointDiscovery)),
		"metadata moved":                 failing(fakeas.Fault{Status: 301, Header: map[string]string{"Location": "/elsewhere"}}.At(fakeas.EndpointDiscovery)),
		"a portal for the metadata":      failing(page.At(fakeas.EndpointDiscovery)),
		"no key set at its URL":          failing(fakeas.Answer(404, "text/plain", "").At(fakeas.EndpointJWKS)),
		"token endpoint knows no client": failing(fakeas.Answer(401, jsonType, `{"error":"invalid_client"}`).At(fakeas.EndpointToken)),
		"token endpoint is not there":    failing(fakeas.Answer(404, "text/html", "<html>").At(fakeas.EndpointToken)),
	} {
		t.Run(name, func(t *testing.T) {
			a := trouble.open(t)
			wantLoginLink(t, a, 502, "misconfigured")
			if !strings.Contains(a.body, "operator") || strings.Contains(a.body, `http-equiv="refresh"`) || a.header.Get("Retry-After") != "" {
				t.Errorf("got Retry-After %q and page %s, want the operator named and no reload", a.header.Get("Retry-After"), a.body)
			}
		})
	}
}

// TestTemporaryFailureReloads until the server is back.
func TestTemporaryFailureReloads(t *testing.T) {
	for name, trouble := range map[string]loginTrouble{
		"pushed, 503":                  pushed(503, "text/html", "<html>"),
		"pushed, 429":                  pushed(429, "", ""),
		"pushed, 504":                  pushed(504, "", ""),
		"pushed, page of a gateway":    pushed(400, "text/html", "<html>400 Bad Request</html>"),
		"pushed, temporarily":          pushed(400, jsonType, `{"error":"temporarily_unavailable"}`),
		"pushed, lost":                 pushed(0, "", ""),
		"metadata, 500":                failing(fakeas.Answer(500, "text/html", "").At(fakeas.EndpointDiscovery)),
		"metadata, 429":                failing(fakeas.TooManyRequests(time.Second).At(fakeas.EndpointDiscovery)),
		"metadata, 408":                failing(fakeas.Answer(408, "", "").At(fakeas.EndpointDiscovery)),
		"metadata, lost":               failing(fakeas.LoseAnswer().At(fakeas.EndpointDiscovery)),
		"keys, 502":                    failing(fakeas.Answer(502, "text/html", "").At(fakeas.EndpointJWKS)),
		"token endpoint, 503":          failing(fakeas.Unavailable().At(fakeas.EndpointToken)),
		"token endpoint, slow gateway": failing(fakeas.Answer(504, "text/html", "").At(fakeas.EndpointToken)),
	} {
		t.Run(name, func(t *testing.T) {
			a := trouble.open(t)
			wait, err := strconv.Atoi(a.header.Get("Retry-After"))
			if a.status != 503 || err != nil || wait < 1 || !strings.Contains(a.body, `http-equiv="refresh"`) || strings.Contains(a.body, "operator") {
				t.Errorf("got status %d, Retry-After %q: %s, want 503 and a page that reloads", a.status, a.header.Get("Retry-After"), a.body)
			}
		})
	}
}

// TestServerThatVanishesNamesTheOperatorAndKeepsTheSession: after a restart of this
// site, a refresh finds no metadata any more.
func TestServerThatVanishesNamesTheOperatorAndKeepsTheSession(t *testing.T) {
	as := startAuthServer(t)
	as.Fail(fakeas.Answer(404, jsonType, `{}`).At(fakeas.EndpointDiscovery).Repeat(-1))
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as)
		cookie := "Cookie: " + sessionCookie + "=" + g.session("")
		time.Sleep(2 * time.Hour)
		a := g.get("/wanted", append(navigation, cookie)...)
		wantPage(t, "navigation", a)
		if a.status != 502 || !strings.Contains(a.body, "operator") || strings.Contains(a.body, `http-equiv="refresh"`) || !strings.Contains(a.body, `<a href="/wanted">Try again</a>`) {
			t.Errorf("got status %d: %s, want 502, the operator and no reload", a.status, a.body)
		}
		if p := g.get("/api", append(script, cookie)...).problem(t); p.Code != "misconfigured" {
			t.Errorf("a script: got problem %+v, want misconfigured", p)
		}
	})
}
