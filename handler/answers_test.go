package handler

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// refreshAnswer is an answer to a refresh, with the expected effect on the session
// and its requests.
type refreshAnswer struct {
	name string
	// answer makes the server give this answer until ClearFaults.
	answer func(as *authServer, g *gate)
	// calls is the number of token requests for one refresh.
	calls int
	// callsExpired is the same for an expired token. 0: as calls.
	callsExpired int
	// status is the status of a request without a valid token: 200, 502 or 503 with
	// the session kept, or 401 for a session that has ended.
	status int
	// endsGood means that the session ends even while the token is valid.
	endsGood bool
	// wait is the least Retry-After, in seconds.
	wait int
	// next is the number of the refresh token that the next refresh sends. 0: not
	// checked.
	next int
	// late means that the next refresh ends the session.
	late bool
	// level and outcome are those of the only log line.
	level, outcome string
}

func always(faults ...fakeas.Fault) func(*authServer, *gate) {
	return func(as *authServer, _ *gate) {
		for _, f := range faults {
			as.Fail(f.For(fakeas.GrantRefresh).Repeat(-1))
		}
	}
}

// edited changes members of the answer, after the server has rotated.
func edited(members map[string]any, omit ...string) func(*authServer, *gate) {
	return func(as *authServer, _ *gate) {
		as.Set(func(k *fakeas.Knobs) { k.RefreshAnswer = fakeas.Edit{Set: members, Omit: omit} })
	}
}

func refreshAnswers() []refreshAnswer {
	json := func(status int, body string) fakeas.Fault { return fakeas.Answer(status, "application/json", body) }
	status := func(status int) fakeas.Fault { return fakeas.Answer(status, "text/html", "<html>no</html>") }
	misconfigured := func(name string, f fakeas.Fault) refreshAnswer {
		return refreshAnswer{name: name, answer: always(f), calls: 1, status: 502, wait: 1, next: 1, level: "error", outcome: "misconfigured"}
	}
	unavailable := func(name string, f fakeas.Fault) refreshAnswer {
		return refreshAnswer{name: name, answer: always(f), calls: 1, status: 503, wait: 1, next: 1, level: "warn", outcome: "unavailable"}
	}
	unclear := func(name string, f fakeas.Fault) refreshAnswer {
		return refreshAnswer{name: name, answer: always(f), calls: 1, callsExpired: 2, status: 401, level: "warn", outcome: "unclear"}
	}
	malformed := func(name string, next int, answer func(*authServer, *gate)) refreshAnswer {
		return refreshAnswer{name: name, answer: answer, calls: 1, status: 503, wait: 1, next: next, level: "error", outcome: "malformed"}
	}
	refused := unavailable("connection refused", fakeas.Fault{})
	refused.calls, refused.next = 0, 0
	refused.answer = func(_ *authServer, g *gate) { g.server.Listener.Close() }
	return []refreshAnswer{
		{name: "new refresh token", answer: always(), calls: 1, status: 200, next: 2},
		{name: "no new refresh token", answer: func(as *authServer, _ *gate) {
			as.Set(func(k *fakeas.Knobs) { k.Rotation = fakeas.RotateNever })
		}, calls: 1, status: 200, next: 1},
		{name: "invalid_grant", answer: func(as *authServer, _ *gate) {
			as.SetUser(fakeas.User{Name: "alice", Disabled: true})
		}, calls: 1, status: 401, endsGood: true, level: "info", outcome: "rejected"},
		{name: "invalid_grant with 403", answer: always(json(403, `{"error":"invalid_grant"}`)), calls: 1, status: 401, endsGood: true, level: "info", outcome: "rejected"},
		unclear("invalid_request", fakeas.OAuthError("invalid_request")),
		unclear("400 without a known error", fakeas.OAuthError("token_is_gone")),
		unclear("400 without a body", json(400, "")),
		unclear("400 with an error of its own form", json(400, `{"error":{"code":17}}`)),
		unavailable("400 without an error", json(400, "{}")),
		unavailable("400 page of a gateway", status(400)),
		unavailable("400 text of a gateway", fakeas.Answer(400, "text/plain", "upstream connect error")),
		unavailable("504 page of a gateway", status(504)).timedOut(),
		misconfigured("invalid_client", json(401, `{"error":"invalid_client"}`)),
		misconfigured("unauthorized_client", fakeas.OAuthError("unauthorized_client")),
		misconfigured("invalid_scope", fakeas.OAuthError("invalid_scope")),
		misconfigured("404", status(404)),
		misconfigured("403 of a firewall", status(403)),
		{name: "429 that asks for 45 s", answer: always(fakeas.TooManyRequests(45 * time.Second)), calls: 1, status: 503, wait: 45, next: 1, level: "warn", outcome: "unavailable"},
		unavailable("temporarily_unavailable", fakeas.OAuthError("temporarily_unavailable")),
		unavailable("500", status(500)),
		unavailable("503", fakeas.Unavailable()),
		refused,
		{name: "no answer, not processed", answer: always(fakeas.LoseRequest()), calls: 2, status: 503, wait: 1, next: 1, level: "warn", outcome: "unanswered"},
		{name: "no answer, processed", answer: always(fakeas.LoseAnswer()), calls: 2, status: 503, wait: 1, next: 1, late: true, level: "warn", outcome: "unanswered"},
		{name: "one answer lost, processed", answer: func(as *authServer, _ *gate) {
			as.Fail(fakeas.LoseAnswer().For(fakeas.GrantRefresh))
		}, calls: 2, status: 401, endsGood: true, level: "warn", outcome: "unanswered"},
		malformed("200 with a page", 1, always(status(200))),
		malformed("200 without tokens", 1, always(json(200, "{}"))),
		malformed("redirect", 1, always(fakeas.Fault{Status: 302, Header: map[string]string{"Location": "/elsewhere"}})),
		malformed("wrong token_type", 2, edited(map[string]any{"token_type": "mac"})),
		malformed("control characters", 2, edited(map[string]any{"access_token": "AT_\r\nX-Admin: 1"})),
		malformed("no access_token", 2, edited(nil, "access_token")),
		{name: "200 without tokens, after the rotation", answer: always(fakeas.Fault{AfterCommit: true, Body: new(string)}), calls: 1, status: 503, wait: 1, next: 1, late: true, level: "error", outcome: "malformed"},
	}
}

// timedOut marks an answer after which the server may still process the request.
func (a refreshAnswer) timedOut() refreshAnswer {
	a.outcome, a.wait = "timed_out", 10
	return a
}

// kinds has the headers of each kind of request.
var kinds = map[string][]string{"navigation": navigation, "script": script}

// TestRequestWithAGoodTokenDoesNotWaitForARefresh: no request waits. The answer of
// the server has no effect on requests, unless it ends the session.
func TestRequestWithAGoodTokenDoesNotWaitForARefresh(t *testing.T) {
	for _, tt := range refreshAnswers() {
		for kind, header := range kinds {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				inAnswerBubble(t, tt, func(t *testing.T, s answerScene) {
					time.Sleep(260 * time.Second) // of 300, so the refresh is due
					began := time.Now()
					s.wantApp(t, s.get("/", header), s.first)
					if took := time.Since(began); took != 0 {
						t.Errorf("a request with a good token: got a wait of %v, want 0", took)
					}
					synctest.Wait()
					s.wantCalls(t, tt.calls)
					a := s.get("/wanted", header)
					switch {
					case tt.endsGood:
						s.wantLogin(t, a, kind)
						s.wantSession(t, false)
						return
					case tt.status == 200:
						s.wantApp(t, a, s.as.newest(fakeas.KindAccess))
					default:
						s.wantApp(t, a, s.first)
					}
					s.wantCalls(t, tt.calls)
					s.wantSession(t, true)
					if tt.status == 401 {
						time.Sleep(20 * time.Second) // the first token is still good
						s.wantApp(t, s.get("/", header), s.first)
						s.wantCalls(t, tt.calls)
						time.Sleep(5 * time.Second) // the server is asked once more
						s.get("/", header)
						synctest.Wait()
						s.wantCalls(t, tt.calls+1)
						s.wantLogin(t, s.get("/wanted", header), kind)
						s.wantSession(t, false)
						return
					}
					s.heal()
					time.Sleep(2 * time.Hour)
					s.wantNext(t, tt, kind)
				})
			})
		}
	}
}

func TestRequestWithAnExpiredTokenGetsTheResultOfTheRefresh(t *testing.T) {
	for _, tt := range refreshAnswers() {
		for kind, header := range kinds {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				inAnswerBubble(t, tt, func(t *testing.T, s answerScene) {
					time.Sleep(5 * time.Minute)
					a := s.get("/wanted", header)
					tt.calls = max(tt.calls, tt.callsExpired)
					s.wantCalls(t, tt.calls)
					switch tt.status {
					case 200:
						s.wantApp(t, a, s.as.newest(fakeas.KindAccess))
					case 401:
						s.wantLogin(t, a, kind)
						if c, err := http.ParseSetCookie(sessionCookieLine(a)); err != nil || c.MaxAge >= 0 {
							t.Errorf("got cookies %q, want the deletion of the session cookie", a.header["Set-Cookie"])
						}
						again := s.get("/wanted", header)
						s.wantLogin(t, again, kind)
						if sessionCookieLine(again) != "" {
							t.Errorf("next request: got cookies %q, want none", again.header["Set-Cookie"])
						}
						s.wantCalls(t, tt.calls)
						s.wantSession(t, false)
						return
					default:
						s.wantTrouble(t, a, tt, kind)
						s.wantTrouble(t, s.get("/wanted", header), tt, kind)
						s.wantCalls(t, tt.calls) // no refresh during the pause
					}
					s.wantSession(t, true)
					s.heal()
					time.Sleep(2 * time.Hour)
					s.wantNext(t, tt, kind)
				})
			})
		}
	}
}

// TestRefreshFailureIsLoggedOnceAMinute at a fitting level, for any number of
// requests.
func TestRefreshFailureIsLoggedOnceAMinute(t *testing.T) {
	for _, tt := range refreshAnswers() {
		t.Run(tt.name, func(t *testing.T) {
			inAnswerBubble(t, tt, func(t *testing.T, s answerScene) {
				time.Sleep(5 * time.Minute)
				for i := range 100 {
					s.get("/", [][]string{navigation, script}[i%2])
					time.Sleep(500 * time.Millisecond)
				}
				levels := map[string]int{}
				for line := range strings.Lines(s.log.text()) {
					for _, level := range []string{"info", "warn", "error"} {
						if strings.Contains(line, `"level":"`+level+`"`) && !strings.Contains(line, `"msg":"login"`) {
							levels[level]++
						}
					}
				}
				lines := s.log.lines(`"outcome":"` + tt.outcome + `"`)
				switch {
				case tt.level == "" && len(levels) != 0:
					t.Errorf("got log %s, want no line above debug", s.log.text())
				case tt.level == "":
					return
				case len(lines) != 1 || !strings.Contains(lines[0], `"level":"`+tt.level+`"`):
					t.Errorf("outcome %s: %q, want one line at level %s", tt.outcome, lines, tt.level)
				}
				// There may be one more line for the failed requests, and one for
				// the end.
				if n := len(s.log.lines(`"msg":"request failed"`)); n > 1 {
					t.Errorf("got %d lines about failed requests, want at most 1", n)
				}
				if n := levels["info"] + levels["warn"] + levels["error"]; n > 3 && !tt.late {
					t.Errorf("got %d lines for one cause, want at most 3: %s", n, s.log.text())
				}
			})
		})
	}
}

// TestSuspectedReuseIsLoggedAsAWarning: a single-use refresh token is refused on
// its first use, so another client may have used it.
func TestSuspectedReuseIsLoggedAsAWarning(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.loggedIn()
		time.Sleep(5 * time.Minute)
		b.mustReach("/") // from here on it is known that the server rotates
		as.Revoke(as.newest(fakeas.KindRefresh))
		time.Sleep(5 * time.Minute)
		if a := b.fetch("GET", "/"); a.status != 401 {
			t.Errorf("got status %d, want 401", a.status)
		}
		lines := g.log.lines("refused on its first use")
		if len(lines) != 1 || !strings.Contains(lines[0], `"level":"warn"`) {
			t.Errorf("got log lines %q, want one warning", lines)
		}
	})
}

// TestRefusalIsIgnoredIfTheStoreHasANewerToken: another instance has refreshed
// first, so the refusal proves nothing. The new token is used.
func TestRefusalIsIgnoredIfTheStoreHasANewerToken(t *testing.T) {
	for kind, header := range kinds {
		t.Run(kind, func(t *testing.T) {
			as := startAuthServer(t)
			// With ReuseRevokes the server would end the login: two instances
			// without a shared lease cannot prevent that.
			as.Set(func(k *fakeas.Knobs) { k.ReuseRevokes = false })
			gate := startGate(t, as)
			gate.stop()
			synctest.Test(t, func(t *testing.T) {
				fast := newRigAt(t, as, plainOAuth)
				cookie := fast.loggedIn().jar.get(sessionCookie).Value
				slow := newRigAt(t, as, gate.token, func(s *setup) {
					s.session.Site, s.session.Vault = fast.keeper.Site, keeper.NewVault(fast.store)
				})
				time.Sleep(5 * time.Minute)
				done := make(chan *answer)
				go func() { done <- slow.get("/", with(cookie, header)...) }()
				gate.wait(t)
				if a := fast.get("/", with(cookie, header)...); a.status != 200 {
					t.Errorf("faster instance: got status %d, want 200", a.status)
				}
				gate.release()
				gate.wait(t)
				gate.release()
				a := <-done
				if a.status != 200 || a.header["Set-Cookie"] != nil || slow.app.last().Get("Authorization") != "Bearer "+as.newest(fakeas.KindAccess) {
					t.Errorf("slower instance: got status %d, want 200, its app got %v", a.status, slow.app.last())
				}
				if n := as.refreshes(); n != 2 || as.Stats().Refused["invalid_grant"] != 1 {
					t.Fatalf("got %d refreshes, refused %v, want 2 and one invalid_grant", n, as.Stats().Refused)
				}
				time.Sleep(5 * time.Minute)
				if a := slow.get("/", with(cookie, header)...); a.status != 200 {
					t.Errorf("slower instance at the next expiry: got status %d, want 200", a.status)
				}
			})
		})
	}
}
