package handler

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestRequestStormCausesOneRefresh: two hundred requests meet an expired token at
// once, fifty times. The server ends the login if a refresh token comes twice.
func TestRequestStormCausesOneRefresh(t *testing.T) {
	const rounds, requests = 50, 200
	for name, hangUps := range map[string]int{"all wait": 0, "some hang up": requests * 3 / 10} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			// Only the newest access token is valid.
			as.Set(func(k *fakeas.Knobs) { k.RefreshKillsAccessToken = true })
			gate := startGate(t, as)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, gate.token)
				cookie := g.loggedIn().jar.get(sessionCookie).Value
				for range rounds {
					time.Sleep(5 * time.Minute)
					gate.stop()
					w := newWave(g, cookie, requests, hangUps)
					w.hangUp(0)
					w.start()
					gate.wait(t) // the refresh at the server
					w.hangUp(1)
					gate.release()
					gate.wait(t) // and its answer on the way back
					w.hangUp(2)
					gate.release()
					w.wait(t)
				}
				st := as.Stats()
				if st.Granted[fakeas.GrantRefresh] != rounds || as.refreshes() != rounds || st.Reuses != 0 || st.MaxConcurrentRefreshes() != 1 {
					t.Errorf("%d refreshes, %d granted, %d reuses, %d at once; want %d, one at a time",
						as.refreshes(), st.Granted[fakeas.GrantRefresh], st.Reuses, st.MaxConcurrentRefreshes(), rounds)
				}
				if n := as.codesRedeemed(); n != 1 {
					t.Errorf("got %d logins, want 1", n)
				}
			})
		})
	}
}

// wave is many requests at once. Some clients disconnect, at three points in equal
// parts.
type wave struct {
	g        *rig
	requests []*http.Request
	cancel   []context.CancelFunc
	hangers  int
	all      sync.WaitGroup
	mu       sync.Mutex
	wrong    map[string]int // statuses other than 200 of the waiting requests
	answered int
}

func newWave(g *rig, cookie string, n, hangers int) *wave {
	w := &wave{g: g, hangers: hangers, wrong: map[string]int{}}
	for i := range n {
		header := [][]string{navigation, script}[i%2]
		r := g.request(http.MethodGet, fmt.Sprint("/", i), with(cookie, header)...)
		ctx, cancel := context.WithCancel(r.Context())
		w.requests, w.cancel = append(w.requests, r.WithContext(ctx)), append(w.cancel, cancel)
	}
	return w
}

// hangUp disconnects the clients of one of the three parts.
func (w *wave) hangUp(part int) {
	for i := range w.hangers {
		if i%3 == part {
			w.cancel[i]()
		}
	}
}

func (w *wave) start() {
	for _, i := range rand.Perm(len(w.requests)) {
		w.all.Go(func() {
			defer w.cancel[i]()
			var token string
			got := w.g.ask(w.requests[i], func(_ http.ResponseWriter, r *http.Request) error {
				token = bearer(r)
				return nil
			})
			_, valid := w.g.as.ValidAccessToken(token)
			w.mu.Lock()
			defer w.mu.Unlock()
			switch {
			case i < w.hangers: // this client has disconnected
			case got.Code != 200 || !valid || got.Header()["Set-Cookie"] != nil:
				w.wrong[fmt.Sprintf("status %d, token valid: %v", got.Code, valid)]++
			default:
				w.answered++
			}
		})
	}
}

func (w *wave) wait(t *testing.T) {
	t.Helper()
	w.all.Wait()
	if want := len(w.requests) - w.hangers; w.answered != want {
		t.Errorf("%d of %d requests were answered with a valid token, others got %v", w.answered, want, w.wrong)
	}
}

// TestRefreshSurvivesClientsThatHangUp while its answer is on the way: the next
// request has the new token, and the server got one refresh.
func TestRefreshSurvivesClientsThatHangUp(t *testing.T) {
	as := startAuthServer(t)
	gate := startGate(t, as)
	gate.stop()
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, gate.token)
		cookie := g.loggedIn().jar.get(sessionCookie).Value
		time.Sleep(5 * time.Minute)
		w := newWave(g, cookie, 20, 20)
		w.start()
		gate.wait(t)
		gate.release()
		gate.wait(t)
		for part := range 3 {
			w.hangUp(part)
		}
		w.all.Wait()
		gate.release()
		synctest.Wait()
		wantNewest(t, g, g.get("/", with(cookie, script)...), 1)
		if as.Stats().Reuses != 0 {
			t.Error("got the spent refresh token at the server again, want it once")
		}
	})
}

// TestOutageOfTenMinutesEndsNoSession under load: no login begins, and the requests
// to the server follow the back-off.
func TestOutageOfTenMinutesEndsNoSession(t *testing.T) {
	const (
		outage = 10 * time.Minute
		tick   = 250 * time.Millisecond
		// Each session follows its own back-off until all five have failed, which
		// takes 45 s at most: at 0, 1, 3, 7, 15 and 31 s. Then all of them together
		// send one probe after 1, 2, 4 and 8 s and every 15 s, or a quarter later.
		most  = 5*6 + 4 + 40
		least = 18
	)
	for name, tt := range map[string]struct {
		fault fakeas.Fault
		calls int // for each refresh
	}{
		"503":                 {fakeas.Unavailable(), 1},
		"connections reset":   {fakeas.LoseRequest(), 2},
		"a page of a gateway": {fakeas.Answer(200, "text/html", "<html>Back soon</html>"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			as := startAuthServer(t)
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, plainOAuth)
				cookies := map[string]string{} // and the refresh tokens behind them
				for range 5 {
					cookie := g.loggedIn().jar.get(sessionCookie).Value
					cookies[cookie] = as.newest(fakeas.KindRefresh)
				}
				logins := as.Stats().Requests[fakeas.EndpointAuthorize]
				time.Sleep(3 * time.Minute)
				as.Fail(tt.fault.Repeat(-1))
				served, delayed := g.load(t, cookies, outage, tick)
				if served == 0 || delayed == 0 {
					t.Errorf("%d requests were served, %d delayed: want both", served, delayed)
				}
				asked := 0
				for _, token := range cookies {
					asked += as.Stats().Presented[token]
				}
				if asked > most*tt.calls || asked < least*tt.calls {
					t.Errorf("the server was asked %d times in %v, want %d to %d", asked, outage, least*tt.calls, most*tt.calls)
				}
				as.ClearFaults()
				time.Sleep(38 * time.Second) // the longest pause
				for cookie := range cookies {
					for kind, header := range kinds {
						if a := g.get("/", with(cookie, header)...); a.status != 200 || a.relayed != 1 {
							t.Errorf("after the outage: %s: got status %d, want 200", kind, a.status)
						}
					}
				}
				if st := as.Stats(); st.Granted[fakeas.GrantRefresh] != len(cookies) || st.Reuses != 0 || st.Requests[fakeas.EndpointAuthorize] != logins {
					t.Errorf("got %d refreshes, %d reuses, %d logins, want no reuse and no login", st.Granted[fakeas.GrantRefresh], st.Reuses, st.Requests[fakeas.EndpointAuthorize]-logins)
				}
				if lines := g.log.lines(`"msg":"session ended"`); len(lines) != 0 {
					t.Errorf("got log lines %q, want one for each outage", lines)
				}
			})
		})
	}
}

// load sends requests of every kind for a while. Each gets the app's answer or
// Retry-After.
func (g *rig) load(t *testing.T, cookies map[string]string, d, tick time.Duration) (served, delayed int) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(tick) {
		for cookie := range cookies {
			method, header := http.MethodGet, navigation
			switch rand.IntN(3) {
			case 0:
				header = script
			case 1:
				method, header = http.MethodPost, script
			}
			app := false
			w := g.ask(g.request(method, "/", with(cookie, header)...), func(_ http.ResponseWriter, r *http.Request) error {
				app = bearer(r) != ""
				return nil
			})
			switch {
			case w.Header()["Set-Cookie"] != nil || w.Header().Get("Location") != "":
				t.Fatalf("%s: got status %d, header %v, want an answer of the Handler", method, w.Code, w.Header())
			case w.Code == 200 && app:
				served++
			case w.Code == 503 && !app && w.Header().Get("Retry-After") != "":
				delayed++
			default:
				t.Fatalf("%s: got status %d, a call of the app %v, want the app's answer", method, w.Code, app)
			}
		}
	}
	return served, delayed
}

// TestRequestBodySurvivesARefresh: only the token of the request differs.
func TestRequestBodySurvivesARefresh(t *testing.T) {
	body := make([]byte, 1<<20)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth)
		b := g.loggedIn()
		cookie := b.jar.get(sessionCookie).Value
		var got []byte
		var length int64
		g.app.answer = func(_ http.ResponseWriter, r *http.Request) (err error) {
			got, err = io.ReadAll(r.Body)
			length = r.ContentLength
			return err
		}
		refreshes := 0
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			for name, size := range map[string]int64{"known length": int64(len(body)), "chunked": -1} {
				for kind, header := range map[string][]string{"script": script, "form": formPost} {
					time.Sleep(5 * time.Minute)
					r := g.request(method, "/orders?a=b%2Fc&a=d;e", with(cookie, append([]string{"X-Mine: 1"}, header...))...)
					r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), size
					refreshes++
					wantNewest(t, g, g.do(r), refreshes)
					if !bytes.Equal(got, body) || length != size {
						t.Errorf("%s, %s, %s: got %d bytes at the app, announced %d, want the whole body", method, name, kind, len(got), length)
					}
					seen := g.app.seen[len(g.app.seen)-1]
					if seen.Method != method || seen.RequestURI != "/orders?a=b%2Fc&a=d;e" || seen.Header.Get("X-Mine") != "1" {
						t.Errorf("got %s %s, %v at the app, want the request unchanged", seen.Method, seen.RequestURI, seen.Header)
					}
				}
			}
		}
		// With a dead refresh token the request never reaches the app.
		as.SetUser(fakeas.User{Name: "alice", Disabled: true})
		time.Sleep(5 * time.Minute)
		for kind, header := range map[string][]string{"script": script, "form": formPost} {
			r := g.request("POST", "/orders", with(cookie, header)...)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			if a := g.do(r); a.status != 401 || a.relayed != 0 || a.location() != "" {
				t.Errorf("%s: got status %d, want 401 to %q", kind, a.status, a.location())
			}
		}
	})
}

// TestLogoutDuringARefreshEndsTheSession: the new tokens are revoked, and reach no
// app.
func TestLogoutDuringARefreshEndsTheSession(t *testing.T) {
	for _, status := range []int{200, 303} {
		header := map[int][]string{200: script, 303: formPost}[status]
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			as := startAuthServer(t)
			gate := startGate(t, as)
			gate.stop()
			synctest.Test(t, func(t *testing.T) {
				g := newRigAt(t, as, gate.token)
				b := g.loggedIn()
				cookie := b.jar.get(sessionCookie).Value
				old := as.newest(fakeas.KindRefresh)
				time.Sleep(5 * time.Minute)
				done := make(chan *answer)
				go func() { done <- g.get("/", with(cookie, script)...) }()
				gate.wait(t)
				gate.release()
				gate.wait(t) // the answer on its way back
				if a := g.post("/oauth2/logout", with(cookie, header)...); a.status != status {
					t.Errorf("the logout: got status %d, want %d", a.status, status)
				}
				gate.release()
				if a := <-done; a.status != 401 || a.relayed != 0 {
					t.Errorf("the request: got status %d, want 401, %d calls of the app", a.status, a.relayed)
				}
				synctest.Wait() // for the revocations
				next := as.newest(fakeas.KindRefresh)
				if next == old {
					t.Fatal("got no refresh, want one")
				}
				var revoked []string
				for _, entry := range as.Log(fakeas.EndpointRevoke) {
					revoked = append(revoked, entry.Form.Get("token"))
				}
				if len(revoked) != 2 || !slices.Contains(revoked, old) || !slices.Contains(revoked, next) {
					t.Errorf("got %d revocations, of both tokens: %v, want both tokens", len(revoked), slices.Contains(revoked, old) && slices.Contains(revoked, next))
				}
				if _, ok := as.ValidAccessToken(as.newest(fakeas.KindAccess)); ok {
					t.Error("got a valid new access token, want it revoked")
				}
				gone(t, g, cookie)
				if lines := g.log.lines("were dropped"); len(lines) != 1 || strings.Contains(lines[0], next) {
					t.Errorf("got log lines %q, want one for each outage", lines)
				}
			})
		})
	}
}

// TestTwoClientsInOneStoreShareNoSession, even with the same key: a cookie of one
// opens nothing at the other, and neither refreshes for the other.
func TestTwoClientsInOneStoreShareNoSession(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		ring, err := seal.NewKeyRing(seal.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		site := func(clientID string) func(*setup) {
			return func(s *setup) { s.session.Site = seal.NewSite(ring, as.URL, clientID, "") }
		}
		one := newRigAt(t, as, plainOAuth, site("one"))
		shared := func(s *setup) { s.session.Vault = keeper.NewVault(one.store) }
		other := newRigAt(t, as, plainOAuth, shared, site("other"))
		same := newRigAt(t, as, plainOAuth, shared, site("one"))
		first, second := one.loggedIn(), other.loggedIn()
		cookie := first.jar.get(sessionCookie).Value
		if a := other.get("/", with(cookie, script)...); a.status != 401 {
			t.Errorf("cookie at the other client's site: got status %d, want 401", a.status)
		}
		time.Sleep(5 * time.Minute)
		second.mustReach("/")
		wantNewest(t, one, one.get("/", with(cookie, script)...), 2)
		wantNewest(t, same, same.get("/", with(cookie, script)...), 2)
		if n := as.Stats().Reuses; n != 0 {
			t.Errorf("got %d reuses, want 0", n)
		}
	})
}
