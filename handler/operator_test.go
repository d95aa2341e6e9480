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
		"other algorithm": knob(func(k *fakeas.Knobs) {
			k.Metadata.Set = map[string]any{"id_token_signing_alg_values_supported": []string{"RS256", "ES256"}}
		}),
		"HMAC": knob(func(k *fakeas.Knobs) { k.LoginIDToken.Defect = fakeas.DefectHMACSecret }),
		"encrypted ID token": knob(func(k *fakeas.Knobs) {
			k.LoginAnswer.Set = map[string]any{"id_token": "eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d"}
		}),
		"audience not trusted":        knob(func(k *fakeas.Knobs) { k.LoginIDToken = forAudiences("app", "api") }),
		"token endpoint is not there": failing(fakeas.Answer(404, "text/html", "<html>").At(fakeas.EndpointToken)),
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

// forAudiences makes an ID token for the given audiences, issued to this client.
func forAudiences(aud ...string) fakeas.TokenEdit {
	return fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{"aud": aud, "azp": "app"}}}
}

// TestOperatorReadsWhatToWrite: the log names the option and its value.
func TestOperatorReadsWhatToWrite(t *testing.T) {
	for want, trouble := range map[string]loginTrouble{
		"set id_token_signed_response_alg ES256": knob(func(k *fakeas.Knobs) {
			k.Metadata.Set = map[string]any{"id_token_signing_alg_values_supported": []string{"RS256", "ES256"}}
		}),
		"register the client for RS256":                 knob(func(k *fakeas.Knobs) { k.LoginIDToken.Defect = fakeas.DefectHMACSecret }),
		"without id_token_encrypted_response_alg":       knob(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"id_token": "a.b.c.d.e"} }),
		"if you trust it, list it in trusted_audiences": knob(func(k *fakeas.Knobs) { k.LoginIDToken = forAudiences("app", "api") }),
	} {
		t.Run(want, func(t *testing.T) {
			g := newRig(t)
			trouble.server(g.as)
			g.browser().open("/wanted")
			if lines := g.log.lines("request failed"); len(lines) != 1 || !strings.Contains(lines[0], want) {
				t.Errorf("the log says %q, want one line with %q", lines, want)
			}
		})
	}
}

// TestOtherAlgorithmOfTheServerIsNotTaken: the server has a key for the algorithm and
// publishes it. A refresh keeps the session with its former ID token, and a logout is
// refused.
func TestOtherAlgorithmOfTheServerIsNotTaken(t *testing.T) {
	for _, alg := range []string{"EdDSA", "RS256"} {
		t.Run(alg, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.oauth.IDTokenAlgorithm = "ES256" })
			g.as.Set(func(k *fakeas.Knobs) {
				k.Metadata.Set = map[string]any{"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "EdDSA"}}
			})
			cookie := g.expiredLogin()
			sid := g.sid()
			_, claims := g.claimsOf(cookie)
			g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "changed@example.test"}})
			g.as.Set(func(k *fakeas.Knobs) { k.SigningAlg = alg })
			g.refreshed(cookie)
			if _, after := g.claimsOf(cookie); after["email"] != claims["email"] {
				t.Errorf("got e-mail %v after the refresh, want %v", after["email"], claims["email"])
			}
			if lines := g.log.lines("could not be verified"); len(lines) != 1 || !strings.Contains(lines[0], "id_token_signed_response_alg "+alg) {
				t.Errorf("the log says %q, want one line that names the option", lines)
			}
			wantLogout(t, alg, g.sendLogout(fakeas.Logout{SessionID: sid}), http.StatusBadRequest)
			g.claimsOf(cookie)
			g.as.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
			wantLogout(t, "ES256", g.sendLogout(fakeas.Logout{SessionID: sid}), http.StatusOK)
			gone(t, g, cookie)
		})
	}
}

// TestTrustedAudienceLogsIn: the ID token of the login and that of a refresh may name
// it, and a logout token may.
func TestTrustedAudienceLogsIn(t *testing.T) {
	g := newRig(t, func(s *setup) { s.oauth.TrustedAudiences = []string{"api", "reports"} })
	g.as.Set(func(k *fakeas.Knobs) {
		k.LoginIDToken, k.RefreshIDToken = forAudiences("api", "app"), forAudiences("app", "reports", "api")
	})
	cookie := g.expiredLogin()
	g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "changed@example.test"}})
	g.refreshed(cookie)
	if _, claims := g.claimsOf(cookie); claims["email"] != "changed@example.test" {
		t.Errorf("got e-mail %v, want that of the refreshed ID token", claims["email"])
	}
	wantLogout(t, "other audience", g.sendLogout(fakeas.Logout{SessionID: g.sid(), Edit: forAudiences("app", "eve")}), http.StatusBadRequest)
	wantLogout(t, "trusted audience", g.sendLogout(fakeas.Logout{SessionID: g.sid(), Edit: forAudiences("app", "api")}), http.StatusOK)
	gone(t, g, cookie)
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
