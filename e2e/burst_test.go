package e2e

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/rp"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

const (
	burstSize   = 200
	burstCycles = 10
)

// A judge is the app's opinion of tokens: it accepts one that the authorization server accepted when it was first seen, and
// whose life is not over since.
type judge struct {
	accepted func(token string) bool // asks the authorization server

	mu   sync.Mutex
	seen map[string]bool // tokens that were valid when they came first
	over map[string]bool
}

func (j *judge) check(token string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if token == "" || j.over[token] {
		return false
	}
	if !j.seen[token] {
		j.seen[token] = j.accepted(token)
	}
	return j.seen[token]
}

// retire waits until the life of every token issued so far is over, and accepts those seen no more. Nothing is
// synchronised by that: what is waited for is the expiry itself.
func (j *judge) retire(life time.Duration) {
	time.Sleep(life)
	j.mu.Lock()
	defer j.mu.Unlock()
	for token := range j.seen {
		j.over[token] = true
	}
}

// An answer is what one request of a burst got.
type answer struct {
	status int
	token  string // that the app saw
}

// A burstRig is a protected app at the strictest server. Its tokens are over soon, as the proxy is told and the judge holds;
// the server itself counts whole seconds, too coarse for that, and gives them longer.
type burstRig struct {
	site   string
	server *op.OIDCProvider
	app    *echo.Server
	judge  *judge
}

func startBurstRig(t *testing.T) *burstRig {
	site := newSite(t)
	redirectURI := site + "/oauth2/callback"
	b := &burstRig{site: site}
	b.server = op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}})
	b.tellShortLife(t, op.Fault{})
	asks, err := rp.Discover(t.Context(), b.server.Issuer, b.server.ClientID, b.server.ClientSecret, redirectURI, "openid")
	if err != nil {
		t.Fatal(err)
	}
	b.judge = &judge{seen: map[string]bool{}, over: map[string]bool{}, accepted: func(token string) bool {
		_, err := asks.UserInfo(t.Context(), token)
		return err == nil
	}}
	b.app = echo.Start(t, echo.Options{Check: b.judge.check})
	caddyserver.Start(t, protected(site, &b.server.Server, "refresh_timeout 50s", b.app))
	return b
}

// tellShortLife changes the answers to all token requests from now on. The first refresh may be spoiled further.
func (b *burstRig) tellShortLife(t *testing.T, refresh op.Fault) {
	short := op.Fault{Times: 1 << 20, Set: map[string]any{"expires_in": shortLife.Seconds()}}
	refresh.GrantType, refresh.Set = "refresh_token", short.Set
	b.server.ClearFaults(t)
	b.server.Fault(t, refresh)
	b.server.Fault(t, short)
}

func (b *burstRig) refreshes(t *testing.T) int { return b.server.Stats(t).Grants["refresh_token"].OK }

// expire waits until the session's token is over. A refresh that was still under way when the last burst ended begins
// the wait anew.
func (b *burstRig) expire(t *testing.T) {
	for before := -1; before != b.refreshes(t); {
		before = b.refreshes(t)
		b.judge.retire(shortLife)
	}
}

// run sends bursts at expired tokens. burst returns the answers and when the refresh could begin.
func (b *burstRig) run(t *testing.T, burst func() ([]answer, time.Time)) {
	for cycle := range burstCycles {
		b.expire(t)
		before := b.refreshes(t)
		answers, begun := burst()
		took := time.Since(begun)
		if len(answers) != burstSize {
			t.Fatalf("cycle %d: got %d answers", cycle, len(answers))
		}
		tokens := map[string]bool{}
		for _, a := range answers {
			if a.status != http.StatusOK || a.token == "" {
				t.Fatalf("cycle %d: an answer with status %d", cycle, a.status)
			}
			tokens[a.token] = true
		}
		// The new token is refreshed in its turn after 70 % of its life, which only a burst on a machine without any time
		// to spare lives to see.
		most := 1 + int(took/(shortLife*7/10))
		if n := b.refreshes(t) - before; n < 1 || n > most {
			t.Errorf("cycle %d: got %d refreshes within %v, want 1", cycle, n, took)
		}
		if len(tokens) > most {
			t.Errorf("cycle %d: the app saw %d tokens within %v, want 1", cycle, len(tokens), took)
		}
	}
	stats := b.server.Stats(t)
	if stats.RepeatedRefreshTokens != 0 || stats.ReuseDetected != 0 || stats.Grants["refresh_token"].Errors != 0 {
		t.Errorf("refresh tokens were sent twice: %+v", stats)
	}
	if n := stats.Requests["GET /auth"]; n != 1 {
		t.Errorf("got %d logins, want the first alone", n)
	}
	if n := b.app.Rejected(); n != 0 {
		t.Errorf("the app refused %d requests, whose tokens were not valid", n)
	}
}

// TestBurst sends 200 requests on as many connections to a session whose token has expired, and lets the server answer
// the refresh only when all of them have been sent.
func TestBurst(t *testing.T) {
	t.Parallel()
	b := startBurstRig(t)
	c := login(t, &b.server.Server, b.site+"/")
	b.run(t, func() ([]answer, time.Time) {
		b.tellShortLife(t, op.Fault{Hold: true})
		var sent, done sync.WaitGroup
		answers := make([]answer, burstSize)
		for i := range answers {
			sent.Add(1)
			once := sync.OnceFunc(sent.Done)
			done.Go(func() {
				defer once() // if the request could not be sent
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { once() }})
				answers[i] = ask(ctx, t, c, b.site+"/api")
			})
		}
		sent.Wait()
		b.server.AwaitHeld(t, 1)
		begun := time.Now()
		b.server.Release(t)
		done.Wait()
		return answers, begun
	})
}

func ask(ctx context.Context, t *testing.T, c *client.Client, rawURL string) answer {
	resp, err := c.Fetch(ctx, http.MethodGet, rawURL, "")
	if err != nil {
		t.Error(err)
		return answer{}
	}
	return answer{resp.Status, bearer(resp)}
}

// TestBurstFromBrowser is the same with fetch() in a real page. Chromium sends six at a time.
func TestBurstFromBrowser(t *testing.T) {
	t.Parallel()
	b := startBurstRig(t)
	_, page := browser.Start(t)
	if doc := page.Open(t, b.site+"/"); doc.Status != http.StatusOK || doc.URL != b.site+"/" {
		t.Fatalf("the login ended with %+v", doc)
	}
	b.run(t, func() ([]answer, time.Time) {
		begun := time.Now()
		var answers []answer
		for _, r := range page.FetchAll(t, "/api", browser.Request{}, burstSize) {
			answers = append(answers, answer{r.Status, bearerIn(r.Status, []byte(r.Body))})
		}
		return answers, begun
	})
}
