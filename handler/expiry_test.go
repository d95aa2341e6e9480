package handler

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// lifetimes records the age of the tokens that reach the app.
type lifetimes struct {
	mu  sync.Mutex
	now time.Time // of the bubble, as of the last token request
	// last is the token issued last, and issued when each was.
	last   string
	issued map[string]time.Time
	times  []time.Time
}

// client is an option of a rig that records the time of each token request.
func (l *lifetimes) client(s *setup) {
	s.oauth.ClientSecret = func() (string, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now = time.Now()
		return clientSecret, nil
	}
}

// issue records each answer. Servers without expires_in issue JWTs, with the times
// of their own clock.
func (l *lifetimes) issue(jwt bool, lifetime, offset time.Duration) func(string, map[string]any) {
	return func(_ string, answer map[string]any) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if jwt {
			iat := l.now.Add(offset)
			part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
			answer["access_token"] = part(`{"alg":"ES256"}`) + "." +
				part(fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":"%d"}`, iat.Unix(), iat.Add(lifetime).Unix(), len(l.times))) + "." + part("signature")
			delete(answer, "expires_in")
		}
		l.last = answer["access_token"].(string)
		l.issued[l.last] = l.now
		l.times = append(l.times, l.now)
	}
}

func (l *lifetimes) age(token string) (age time.Duration, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.issued[token]
	return time.Since(at), known
}

// TestNoExpiredTokenReachesTheApp for any lifetime and any clock of the server.
// Refreshes are at least a second apart.
func TestNoExpiredTokenReachesTheApp(t *testing.T) {
	for _, lifetime := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second} {
		for _, offset := range []time.Duration{-time.Minute, 0, time.Minute} {
			for _, jwt := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v, clock %v, JWT %v", lifetime, offset, jwt), func(t *testing.T) {
					as := startAuthServer(t)
					l := &lifetimes{issued: map[string]time.Time{}}
					as.Set(func(k *fakeas.Knobs) {
						k.AccessTokenLifetime, k.ClockOffset, k.Mutate = lifetime, offset, l.issue(jwt, lifetime, offset)
					})
					synctest.Test(t, func(t *testing.T) {
						testExpiryEdge(t, newRigAt(t, as, plainOAuth, l.client), l, lifetime)
					})
				})
			}
		}
	}
}

func testExpiryEdge(t *testing.T, g *rig, l *lifetimes, lifetime time.Duration) {
	cookie := g.loggedIn().jar.get(sessionCookie).Value
	began := time.Now()
	var all sync.WaitGroup
	var oldest time.Duration
	var mu sync.Mutex
	step := lifetime/10 + 3*time.Millisecond
	for i := range 200 {
		time.Sleep(step)
		if i%20 == 0 {
			time.Sleep(lifetime + lifetime/2) // no request causes an early refresh
		}
		for range 2 {
			r := g.request("GET", "/", with(cookie, script)...)
			all.Go(func() {
				w := g.ask(r, func(_ http.ResponseWriter, r *http.Request) error {
					age, known := l.age(bearer(r))
					if !known {
						t.Errorf("got token %.10q at the app, want a valid one", bearer(r))
					}
					mu.Lock()
					defer mu.Unlock()
					oldest = max(oldest, age)
					return nil
				})
				if w.Code != 200 {
					t.Errorf("got status %d, want 200", w.Code)
				}
			})
		}
	}
	all.Wait()
	synctest.Wait()
	if oldest > lifetime {
		t.Errorf("got a token %v old at the app, want one younger than %v", oldest, lifetime)
	}
	// A token is refreshed after 70 % of its lifetime at the earliest.
	seconds := time.Since(began).Seconds()
	if n, most := float64(g.as.refreshes()), seconds/max(0.7*lifetime.Seconds(), 1)+1; n > most || n < seconds/lifetime.Seconds()/2 {
		t.Errorf("%.0f refreshes in %.0f s, want %.0f at the most", n, seconds, most)
	}
	for i := 1; i < len(l.times); i++ {
		if gap := l.times[i].Sub(l.times[i-1]); gap < time.Second {
			t.Errorf("refresh %d: got %v after the last one, want at least a second", i, gap)
		}
	}
}
