package handler

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

func retrying(s *setup) { s.handler.RetryUnauthorized = true }

// invalidToken is the challenge of RFC 6750, section 3.1.
const invalidToken = `Bearer realm="api", error="invalid_token", error_description="expired"`

// refuse answers that the token is invalid, with a recognizable header and body.
func refuse(w http.ResponseWriter) error {
	w.Header().Set("WWW-Authenticate", invalidToken)
	w.Header().Set("X-First", "1")
	w.Header().Add("Set-Cookie", "first=1")
	w.WriteHeader(http.StatusUnauthorized)
	_, err := io.WriteString(w, "not with this token")
	return err
}

// refusesOld is an app that accepts only the newest token of the server. It records
// the tokens of all requests.
func refusesOld(g *rig, asked *[]string) func(http.ResponseWriter, *http.Request) error {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) error {
		token := bearer(r)
		mu.Lock()
		*asked = append(*asked, token)
		mu.Unlock()
		if _, ok := g.as.ValidAccessToken(token); !ok {
			return refuse(w)
		}
		w.Header().Set("X-Second", "2")
		_, err := io.WriteString(w, "welcome")
		return err
	}
}

// TestInvalidTokenIsReplacedAndTheRequestRepeated: the client gets the second
// answer, and no part of the first one.
func TestInvalidTokenIsReplacedAndTheRequestRepeated(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS"} {
		t.Run(method, func(t *testing.T) {
			g := newRig(t, plainOAuth, retrying)
			cookie := g.oldSession(time.Minute)
			first := g.as.newest(fakeas.KindAccess)
			g.as.Revoke(first)
			var asked []string
			g.app.answer = refusesOld(g, &asked)
			a := g.do(g.request(method, "/api", with(cookie, script)...))
			want := http.Header{"X-Second": {"2"}, "Content-Type": {"text/plain; charset=utf-8"}, "Cache-Control": {"private"}}
			if diff := cmp.Diff(want, a.header); a.status != 200 || a.body != "welcome" || diff != "" {
				t.Errorf("got status %d, want 200: %q\n%s", a.status, a.body, diff)
			}
			second := g.as.newest(fakeas.KindAccess)
			if diff := cmp.Diff([]string{first, second}, asked); diff != "" || g.as.refreshes() != 1 {
				t.Errorf("got %d refreshes, requests at the app (-want +got):\n%s", g.as.refreshes(), diff)
			}
		})
	}
}

// TestOtherAnswersAreNotRepeated, and cause no refresh.
func TestOtherAnswersAreNotRepeated(t *testing.T) {
	for name, tt := range map[string]struct {
		status    int
		challenge []string
	}{
		"401 without a challenge": {401, nil},
		"401 of another kind":     {401, []string{`Bearer realm="api"`}},
		"401 wants more scope":    {401, []string{`Bearer error="insufficient_scope"`}},
		"401 of another scheme":   {401, []string{`Basic realm="invalid_token"`, `Negotiate`}},
		"403":                     {403, []string{invalidToken}},
		"200":                     {200, []string{invalidToken}},
		"500":                     {500, []string{invalidToken}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, plainOAuth, retrying)
			cookie := g.oldSession(time.Minute)
			g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
				for _, c := range tt.challenge {
					w.Header().Add("WWW-Authenticate", c)
				}
				w.WriteHeader(tt.status)
				_, err := io.WriteString(w, "as it is")
				return err
			}
			a := g.get("/", with(cookie, script)...)
			if a.status != tt.status || a.body != "as it is" || cmp.Diff(tt.challenge, a.header["Www-Authenticate"]) != "" || a.relayed != 1 {
				t.Errorf("got status %d, want %d, asked %d times, %v: %q", a.status, tt.status, a.relayed, a.header, a.body)
			}
			if n := g.as.refreshes(); n != 0 {
				t.Errorf("got %d refreshes, want 0", n)
			}
		})
	}
}

func TestInvalidTokenChallengeIsRecognized(t *testing.T) {
	for _, challenges := range [][]string{
		{invalidToken}, {`bearer error=invalid_token`}, {`Basic realm="x"`, `Bearer error="invalid_token"`},
		{`BEARER  realm="a", error="invalid_token"`}, {`Basic realm="x", Bearer error="invalid_token"`},
	} {
		header := http.Header{"Www-Authenticate": challenges}
		if !isInvalidTokenAnswer(401, header) {
			t.Errorf("challenge %q: got no match, want one", challenges)
		}
		if isInvalidTokenAnswer(403, header) {
			t.Errorf("challenge %q with status 403: got a match, want none", challenges)
		}
	}
}

// TestAppThatRefusesEveryTokenCausesFewRefreshes: one in each interval. The client
// gets the 401.
func TestAppThatRefusesEveryTokenCausesFewRefreshes(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			as := startAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth, retrying)
				cookie := g.loggedIn().jar.get(sessionCookie).Value
				g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
					_, _ = io.Copy(io.Discard, r.Body)
					return refuse(w)
				}
				const minutes = 2
				for range minutes * 60 * 2 {
					r := g.request(method, "/", with(cookie, script)...)
					if method == "POST" {
						r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
					}
					a := g.do(r)
					if a.status != 401 || a.body != "not with this token" || a.header.Get("X-First") != "1" || a.relayed > 2 {
						t.Fatalf("got status %d, want 401, asked %d times: %q", a.status, a.relayed, a.body)
					}
					time.Sleep(500 * time.Millisecond)
				}
				synctest.Wait()
				if n, most := as.refreshes(), int(minutes*time.Minute/minRetryAge); n < most-1 || n > most {
					t.Errorf("%d refreshes in %d minutes, want one per %v", n, minutes, minRetryAge)
				}
				if as.Stats().Reuses != 0 {
					t.Error("got a spent refresh token at the server, want each once")
				}
			})
		})
	}
}

// TestRefusedRequestWithABodyIsNotRepeated: the client gets its answer, and the
// next request has a new token.
func TestRefusedRequestWithABodyIsNotRepeated(t *testing.T) {
	for name, length := range map[string]int64{"known length": 5, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth, retrying)
				cookie := g.loggedIn().jar.get(sessionCookie).Value
				time.Sleep(time.Minute)
				as.Revoke(as.newest(fakeas.KindAccess))
				var asked, bodies []string
				answer := refusesOld(g, &asked)
				g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return err
					}
					bodies = append(bodies, string(body))
					return answer(w, r)
				}
				r := g.request("POST", "/orders", with(cookie, script)...)
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("order")), length
				a := g.do(r)
				if a.status != 401 || a.body != "not with this token" || a.relayed != 1 || a.header.Get("X-First") != "1" {
					t.Errorf("got status %d, want 401, %d calls of the app: %q", a.status, a.relayed, a.body)
				}
				synctest.Wait()
				if a := g.get("/", with(cookie, script)...); a.status != 200 || a.relayed != 1 {
					t.Errorf("next request: got status %d, want 200, after %d attempts", a.status, a.relayed)
				}
				if diff := cmp.Diff([]string{"order", ""}, bodies); diff != "" || as.refreshes() != 1 {
					t.Errorf("got %d refreshes, bodies at the app (-want +got):\n%s", as.refreshes(), diff)
				}
			})
		})
	}
}

// TestRefusalPassesIfTheRefreshFails, and the session stays.
func TestRefusalPassesIfTheRefreshFails(t *testing.T) {
	for name, fault := range map[string]fakeas.Fault{
		"server down":   fakeas.Unavailable(),
		"unclear":       fakeas.OAuthError("invalid_request"),
		"misconfigured": fakeas.OAuthError("invalid_client"),
		"refused":       fakeas.OAuthError("invalid_grant"),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				g := newRig(t, plainOAuth, retrying)
				cookie := g.oldSession(time.Minute)
				g.as.Fail(fault.For(fakeas.GrantRefresh).Repeat(-1))
				body := strings.Repeat("the reason. ", 1000)
				g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
					w.Header().Set("WWW-Authenticate", invalidToken)
					w.Header().Set("Content-Type", "text/reason")
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
					w.WriteHeader(401)
					if r.Method == http.MethodHead {
						return nil
					}
					if err := http.NewResponseController(w).Flush(); err != nil {
						return err
					}
					_, err := io.Copy(w, strings.NewReader(body))
					return err
				}
				r := g.request(method, "/", with(cookie, script)...)
				a := g.do(r)
				want := body
				if method == "HEAD" {
					want = ""
				}
				if a.status != 401 || a.body != want || a.relayed != 1 || a.header.Get("Content-Type") != "text/reason" || a.header.Get("WWW-Authenticate") != invalidToken {
					t.Errorf("got status %d, want 401, asked %d times, %v: %d bytes", a.status, a.relayed, a.header, len(a.body))
				}
				if a.header["Set-Cookie"] != nil || g.as.refreshes() != 1 {
					t.Errorf("got %d refreshes and cookies %q, want those of the table", g.as.refreshes(), a.header["Set-Cookie"])
				}
			})
		}
	}
}

// TestLongRefusalPassesWhole: a truncated answer must not look complete.
func TestLongRefusalPassesWhole(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	cookie := g.oldSession(time.Minute)
	g.as.Fail(fakeas.Unavailable().For(fakeas.GrantRefresh))
	body := strings.Repeat("0123456789abcdef", 1<<16)
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("WWW-Authenticate", invalidToken)
		w.WriteHeader(401)
		_, err := io.Copy(w, strings.NewReader(body))
		return err
	}
	if a := g.get("/", with(cookie, script)...); a.status != 401 || a.body != body {
		t.Errorf("got status %d, want 401, %d of %d bytes", a.status, len(a.body), len(body))
	}
}

// TestManyRefusalsShareOneRefresh if they had the same token.
func TestManyRefusalsShareOneRefresh(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	cookie := g.oldSession(time.Minute)
	g.as.Revoke(g.as.newest(fakeas.KindAccess))
	const n = 50
	var all, asked sync.WaitGroup
	asked.Add(n) // all are refused before the first answer
	app := func(w http.ResponseWriter, r *http.Request) error {
		if _, ok := g.as.ValidAccessToken(bearer(r)); ok {
			_, err := io.WriteString(w, "welcome")
			return err
		}
		asked.Done()
		asked.Wait()
		return refuse(w)
	}
	for range n {
		r := g.request("GET", "/", with(cookie, script)...)
		all.Go(func() {
			if w := g.ask(r, app); w.Code != 200 || w.Body.String() != "welcome" || w.Header().Get("X-First") != "" {
				t.Errorf("got status %d, want 200: %q", w.Code, w.Body)
			}
		})
	}
	all.Wait()
	if st := g.as.Stats(); g.as.refreshes() != 1 || st.Reuses != 0 {
		t.Errorf("got %d refreshes and %d reuses, want 1 and 0", g.as.refreshes(), st.Reuses)
	}
}

// TestSessionWithoutRefreshTokenCannotRetry: its 401 passes, and the session stays.
func TestSessionWithoutRefreshTokenCannotRetry(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	g.as.Set(func(k *fakeas.Knobs) { k.RefreshTokens = fakeas.RefreshNone })
	cookie := g.oldSession(time.Minute)
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error { return refuse(w) }
	if a := g.get("/", with(cookie, script)...); a.status != 401 || a.relayed != 1 || a.body != "not with this token" {
		t.Errorf("got status %d, want 401, asked %d times: %q", a.status, a.relayed, a.body)
	}
	g.app.answer = nil
	if a := g.get("/", with(cookie, script)...); a.status != 200 || g.as.refreshes() != 0 {
		t.Errorf("afterwards: got status %d, want 200, %d refreshes", a.status, g.as.refreshes())
	}
}
