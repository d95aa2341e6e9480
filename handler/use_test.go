package handler

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

const shortIdle = 20 * time.Second

// inShortIdle runs a test in a synctest bubble, at a site with a session and the idle
// time-out shortIdle.
func inShortIdle(t *testing.T, f func(t *testing.T, g *rig, header []string), options ...func(*setup)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		options := append([]func(*setup){plainOAuth, func(s *setup) { s.session.IdleTimeout = shortIdle }}, options...)
		g := newRigAt(t, &authServer{Server: offline()}, options...)
		f(t, g, append(slices.Clone(script), "Cookie: "+sessionCookie+"="+g.session("")))
	})
}

// stream answers with a header after a while, and goes on until the request is cancelled.
func stream(after time.Duration, contentType string, status int) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		time.Sleep(after)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		<-r.Context().Done()
		return nil
	}
}

// TestIdleTimeoutEndsStreams at most 5 % late, after any earlier uses. The time until an
// answer becomes a stream counts as use.
func TestIdleTimeoutEndsStreams(t *testing.T) {
	for name, app := range map[string]struct {
		ordinary time.Duration // before the stream
		method   string
		answer   func(http.ResponseWriter, *http.Request) error
	}{
		"event stream":                {answer: stream(0, "text/event-stream", 200)},
		"with parameters":             {answer: stream(0, " Text/Event-Stream ; charset=utf-8", 200)},
		"after a minute":              {ordinary: time.Minute, answer: stream(time.Minute, "text/event-stream;x", 200)},
		"after a minute, by POST":     {ordinary: time.Minute, method: "POST", answer: stream(time.Minute, "text/event-stream", 200)},
		"WebSocket":                   {answer: stream(0, "", 101)},
		"WebSocket after a minute":    {ordinary: time.Minute, answer: stream(time.Minute, "", 101)},
		"WebSocket over HTTP/2":       {method: "CONNECT", answer: stream(0, "", 200)},
		"header by the first write":   {answer: func(w http.ResponseWriter, r *http.Request) error { return firstWrite(w, r, false) }},
		"header by the first flush":   {answer: func(w http.ResponseWriter, r *http.Request) error { return firstWrite(w, r, true) }},
		"early hints before a stream": {answer: afterHints},
	} {
		for _, uses := range []int{0, 1, 5} {
			t.Run(name, func(t *testing.T) {
				inShortIdle(t, func(t *testing.T, g *rig, header []string) {
					r := g.request("GET", "/stream", header...)
					if app.method == "CONNECT" {
						r.Header[":protocol"] = []string{"websocket"}
					}
					if app.method != "" {
						r.Method = app.method
					}
					ended := make(chan time.Time, 1)
					last := time.Now().Add(app.ordinary)
					go func() {
						g.ask(r, app.answer)
						ended <- time.Now()
					}()
					time.Sleep(app.ordinary)
					for range uses {
						time.Sleep(3 * time.Second)
						last = time.Now()
						if a := g.get("/", header...); a.status != 200 {
							t.Fatalf("got status %d, want 200", a.status)
						}
					}
					if unused := (<-ended).Sub(last); unused < shortIdle || unused > shortIdle*21/20 {
						t.Errorf("after %d uses: got an end %v after the last one, want the idle timeout", uses, unused)
					}
				})
			})
		}
	}
}

func firstWrite(w http.ResponseWriter, r *http.Request, flush bool) error {
	w.Header().Set("Content-Type", "text/event-stream")
	if flush {
		_ = http.NewResponseController(w).Flush()
	} else {
		_, _ = io.WriteString(w, "data: 1\n\n")
	}
	<-r.Context().Done()
	return nil
}

func afterHints(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Link", "</a.css>; rel=preload")
	w.WriteHeader(http.StatusEarlyHints)
	return stream(0, "text/event-stream", 200)(w, r)
}

// TestRequestInProgressIsNotCutAtTheIdleTimeout, and its session lasts for the idle
// time-out after it.
func TestRequestInProgressIsNotCutAtTheIdleTimeout(t *testing.T) {
	const length = 10 * time.Minute
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) error{
		"slow answer": func(w http.ResponseWriter, r *http.Request) error {
			return waitFor(r.Context(), length)
		},
		"upload": func(w http.ResponseWriter, r *http.Request) error {
			_, err := io.Copy(io.Discard, r.Body)
			return err
		},
		"long download": func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "application/octet-stream")
			for range length / time.Second {
				if _, err := io.WriteString(w, "x"); err != nil || waitFor(r.Context(), time.Second) != nil {
					return context.Cause(r.Context())
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inShortIdle(t, func(t *testing.T, g *rig, header []string) {
				r := g.request("POST", "/long", header...)
				body, upload := io.Pipe()
				r.Body = body
				defer body.Close()
				go func() {
					for range length / time.Second {
						time.Sleep(time.Second)
						if _, err := upload.Write([]byte("x")); err != nil {
							return
						}
					}
					_ = upload.Close()
				}()
				began := time.Now()
				g.app.answer = answer
				a := g.do(r)
				if took := time.Since(began); a.err != nil || a.status != 200 || took < length {
					t.Fatalf("got status %d and error %v after %v, want 200 after %v", a.status, a.err, took, length)
				}
				g.app.answer = nil
				time.Sleep(shortIdle - time.Millisecond)
				if a := g.get("/", header...); a.status != 200 {
					t.Errorf("got status %d at the end of the idle time, want 200", a.status)
				}
			})
		})
	}
}

// waitFor waits, or returns why the request has been cancelled.
func waitFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TestRequestInProgressIsCutAtTheMaximumLifetime and at a logout.
func TestRequestInProgressIsCutAtTheMaximumLifetime(t *testing.T) {
	inShortIdle(t, func(t *testing.T, g *rig, header []string) {
		began := time.Now()
		g.app.answer = func(_ http.ResponseWriter, r *http.Request) error { return waitFor(r.Context(), 100*time.Hour) }
		if a := g.get("/", header...); a.status != 401 || time.Since(began) != time.Hour {
			t.Errorf("got status %d after %v, want 401 after 1h0m0s", a.status, time.Since(began))
		}
	}, func(s *setup) { s.session.MaxLifetime = time.Hour })
}

// TestStreamEndsWithTheTokenItBeganWith if CloseExpiredStreams is set. A client that
// connects again gets a fresh token.
func TestStreamEndsWithTheTokenItBeganWith(t *testing.T) {
	const lifetime = 5 * time.Minute
	for _, closed := range []bool{false, true} {
		as := startAuthServer(t)
		as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = lifetime })
		synctest.Test(t, func(t *testing.T) {
			g := newRigAt(t, as, plainOAuth, func(s *setup) {
				s.handler.CloseExpiredStreams = closed
				s.session.IdleTimeout = time.Hour
			})
			cookie := g.loggedIn().jar.get(sessionCookie).Value
			seen := map[string]bool{}
			for _, answer := range []func(http.ResponseWriter, *http.Request) error{stream(0, "text/event-stream", 200), stream(0, "", 101)} {
				began := time.Now()
				var cause error
				g.ask(g.request("GET", "/stream", with(cookie, script)...), func(w http.ResponseWriter, r *http.Request) error {
					seen[bearer(r)] = true
					_ = answer(w, r)
					cause = context.Cause(r.Context())
					return nil
				})
				want, wantCause := lifetime-10*time.Second, keeper.ErrTokenExpired
				if !closed {
					want, wantCause = time.Hour+3*time.Minute, keeper.ErrNoSession
				}
				if took := time.Since(began); took < want-10*time.Second || took > want+10*time.Second || !errors.Is(cause, wantCause) {
					t.Errorf("closed %v: got a stream of %v with cause %v, want %v with %v", closed, took, cause, want, wantCause)
				}
				if !closed {
					break
				}
			}
			if closed && len(seen) != 2 {
				t.Errorf("got %d tokens, want a fresh one for the second stream", len(seen))
			}
		})
	}
}

// TestOrdinaryRequestOutlivesItsToken although CloseExpiredStreams is set.
func TestOrdinaryRequestOutlivesItsToken(t *testing.T) {
	inShortIdle(t, func(t *testing.T, g *rig, header []string) {
		g.app.answer = func(_ http.ResponseWriter, r *http.Request) error { return waitFor(r.Context(), 3*time.Hour) }
		if a := g.get("/", header...); a.status != 200 {
			t.Errorf("got status %d and error %v, want 200", a.status, a.err)
		}
	}, func(s *setup) { s.handler.CloseExpiredStreams = true })
}

// TestRetriedStreamEndsWithItsSecondToken: with retry_unauthorized, the stream belongs to
// the token of the second try.
func TestRetriedStreamEndsWithItsSecondToken(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = time.Hour })
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, func(s *setup) {
			s.handler.CloseExpiredStreams, s.handler.RetryUnauthorized = true, true
		})
		cookie := g.loggedIn().jar.get(sessionCookie).Value
		time.Sleep(30 * time.Minute)
		began, tries := time.Now(), 0
		g.ask(g.request("GET", "/stream", with(cookie, script)...), func(w http.ResponseWriter, r *http.Request) error {
			if tries++; tries == 1 {
				w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return nil
			}
			return stream(0, "text/event-stream", 200)(w, r)
		})
		if took := time.Since(began); tries != 2 || took < 59*time.Minute || took > time.Hour {
			t.Errorf("got a stream of %v after %d tries, want nearly an hour after 2", took, tries)
		}
	})
}

// ignorePolls makes requests below /poll no use of the session.
func ignorePolls(s *setup) {
	s.handler.IdleIgnore = func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/poll") }
}

// TestIgnoredRequestsAreNoUse: they are relayed with the token, and the session becomes
// idle in spite of them.
func TestIgnoredRequestsAreNoUse(t *testing.T) {
	for name, option := range map[string]func(*setup){
		"plain":              func(*setup) {},
		"refresh_if_older":   func(s *setup) { s.handler.RefreshIfOlder = []AgeLimit{{Match: below("/"), Age: time.Hour}} },
		"retry_unauthorized": func(s *setup) { s.handler.RetryUnauthorized = true },
	} {
		t.Run(name, func(t *testing.T) {
			inShortIdle(t, func(t *testing.T, g *rig, header []string) {
				began := time.Now()
				for time.Since(began) < shortIdle {
					if a := g.get("/poll?n=1", header...); a.status != 200 || g.app.last().Get("Authorization") != "Bearer AT_made_by_hand" {
						t.Fatalf("after %v: got status %d, want the app's answer with the token", time.Since(began), a.status)
					}
					time.Sleep(700 * time.Millisecond)
				}
				time.Sleep(time.Until(began.Add(shortIdle*21/20 + time.Millisecond)))
				if a := g.get("/poll", header...); a.status != 401 {
					t.Errorf("got status %d after the idle time, want 401", a.status)
				}
			}, ignorePolls, option)
		})
	}
}

// TestOtherRequestsAreUseBesideIgnoredOnes.
func TestOtherRequestsAreUseBesideIgnoredOnes(t *testing.T) {
	inShortIdle(t, func(t *testing.T, g *rig, header []string) {
		for i := range 20 {
			time.Sleep(9 * time.Second)
			path := "/poll"
			if i%2 == 0 {
				path = "/page"
			}
			if a := g.get(path, header...); a.status != 200 {
				t.Fatalf("request %d for %s: got status %d, want 200", i, path, a.status)
			}
		}
	}, ignorePolls)
}

// TestIgnoredRequestInProgressEndsWithTheSession: it neither keeps the session nor
// outlives it.
func TestIgnoredRequestInProgressEndsWithTheSession(t *testing.T) {
	inShortIdle(t, func(t *testing.T, g *rig, header []string) {
		began := time.Now()
		g.app.answer = func(_ http.ResponseWriter, r *http.Request) error { return waitFor(r.Context(), time.Hour) }
		a := g.get("/poll/long", header...)
		if took := time.Since(began); a.status != 401 || took < shortIdle || took > shortIdle*21/20 {
			t.Errorf("got status %d after %v, want 401 at the idle end", a.status, took)
		}
	}, ignorePolls)
}

// TestIgnoredRequestsRefreshTheToken as others do, and the refresh is no use either.
func TestIgnoredRequestsRefreshTheToken(t *testing.T) {
	as := startAuthServer(t)
	as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = time.Minute })
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, ignorePolls, func(s *setup) { s.session.IdleTimeout = 10 * time.Minute })
		cookie := g.loggedIn().jar.get(sessionCookie).Value
		began := time.Now()
		status := 200
		for status == 200 && time.Since(began) < time.Hour {
			time.Sleep(20 * time.Second)
			status = g.get("/poll", with(cookie, script)...).status
		}
		if lived := time.Since(began); status != 401 || lived < 10*time.Minute || lived > 11*time.Minute {
			t.Errorf("got status %d after %v, want 401 after the idle time-out", status, lived)
		}
		if n := g.as.refreshes(); n < 9 {
			t.Errorf("got %d refreshes, want about 12", n)
		}
	})
}

// TestRetriesOfIgnoredRequestsAreNoUse: the app refuses the first token of each poll.
func TestRetriesOfIgnoredRequestsAreNoUse(t *testing.T) {
	for _, method := range []string{"GET", "POST"} { // a request with a body is not repeated
		as := startAuthServer(t)
		synctest.Test(t, func(t *testing.T) {
			g := newRigAt(t, as, plainOAuth, ignorePolls, func(s *setup) {
				s.session.IdleTimeout, s.handler.RetryUnauthorized = 10*time.Minute, true
			})
			cookie := g.loggedIn().jar.get(sessionCookie).Value
			began, status := time.Now(), 200
			for status != 302 && status != 401 && time.Since(began) < time.Hour {
				time.Sleep(time.Minute)
				tries := 0
				r := g.request(method, "/poll", with(cookie, navigation)...)
				if method == "POST" {
					r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
				}
				w := g.ask(r, func(w http.ResponseWriter, _ *http.Request) error {
					if tries++; tries == 1 {
						w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
						w.WriteHeader(http.StatusUnauthorized)
					}
					return nil
				})
				if status = w.Code; tries > 0 {
					status = 200 // of the app
				}
			}
			synctest.Wait()
			if lived := time.Since(began); lived < 10*time.Minute || lived > 11*time.Minute+time.Second {
				t.Errorf("%s: got an end after %v, want it after the idle time-out", method, lived)
			}
			if n := g.as.refreshes(); n < 8 {
				t.Errorf("%s: got %d refreshes, want one for each poll", method, n)
			}
		})
	}
}

// TestOuterHandlerDecidesWhetherANestedRequestIsUse: the inner one neither counts a
// request that the outer one ignores, nor ignores another.
func TestOuterHandlerDecidesWhetherANestedRequestIsUse(t *testing.T) {
	for _, ignored := range []bool{false, true} {
		inShortIdle(t, func(t *testing.T, g *rig, header []string) {
			g.handler.IdleIgnore = func(*http.Request) bool { return ignored }
			config := g.handler.Config
			config.IdleIgnore = func(*http.Request) bool { return !ignored }
			inner, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			lasting := 0
			for range 4 {
				w := httptest.NewRecorder()
				_ = g.handler.ServeHTTP(w, g.request("GET", "/", header...), NextFunc(func(w http.ResponseWriter, r *http.Request) error {
					return inner.ServeHTTP(w, r, NextFunc(func(_ http.ResponseWriter, r *http.Request) error {
						return waitFor(r.Context(), shortIdle/2)
					}))
				}))
				if w.Code == 200 {
					lasting++
				}
				time.Sleep(shortIdle / 4)
			}
			if ignored != (lasting < 4) {
				t.Errorf("outer ignores %v: got %d of 4 requests served, want the outer one to decide", ignored, lasting)
			}
		})
	}
}

// TestSessionEndpointIsNoUseAndShowsRequestsInProgress in idle_expires_in.
func TestSessionEndpointIsNoUseAndShowsRequestsInProgress(t *testing.T) {
	inShortIdle(t, func(t *testing.T, g *rig, header []string) {
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			g.ask(g.request("POST", "/upload", header...), func(http.ResponseWriter, *http.Request) error {
				<-ctx.Done()
				return nil
			})
		})
		for range 100 {
			time.Sleep(time.Second)
			if a := g.get("/oauth2/session", header...); !strings.Contains(a.body, `"idle_expires_in":20,`) {
				t.Fatalf("got %s, want 20 s to the idle end during a request", a.body)
			}
		}
		stop()
		all.Wait()
		time.Sleep(shortIdle / 2)
		if a := g.get("/oauth2/session", header...); !strings.Contains(a.body, `"idle_expires_in":10,`) && !strings.Contains(a.body, `"idle_expires_in":9,`) {
			t.Errorf("got %s, want 9 or 10 s to the idle end", a.body)
		}
		time.Sleep(shortIdle)
		if a := g.get("/oauth2/session", header...); !strings.Contains(a.body, `"authenticated":false`) {
			t.Errorf("got %s, want no session", a.body)
		}
	})
}
