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

// A tokenValidator validates tokens for the app. A token is valid if the authorization server accepts it at its first use,
// until expireAll.
type tokenValidator struct {
	validAtServer func(token string) bool

	mu      sync.Mutex
	valid   map[string]bool // valid at their first use
	expired map[string]bool
}

func (v *tokenValidator) check(token string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if token == "" || v.expired[token] {
		return false
	}
	if !v.valid[token] {
		v.valid[token] = v.validAtServer(token)
	}
	return v.valid[token]
}

// expireAll waits for the lifetime of the tokens, and then invalidates all tokens so far.
func (v *tokenValidator) expireAll(lifetime time.Duration) {
	time.Sleep(lifetime)
	v.mu.Lock()
	defer v.mu.Unlock()
	for token := range v.valid {
		v.expired[token] = true
	}
}

// An answer is the result of one request of a burst.
type answer struct {
	status int
	token  string // in the app's request
}

// A burstRig is a protected app at oidc-provider, the strictest server. Access tokens live for shortLife according to
// expires_in and to the validator. At the server they live longer, since its lifetimes are whole seconds.
type burstRig struct {
	site      string
	server    *op.OIDCProvider
	app       *echo.Server
	validator *tokenValidator
}

func startBurstRig(t *testing.T) *burstRig {
	site := newSite(t)
	redirectURI := site + "/oauth2/callback"
	b := &burstRig{site: site}
	b.server = op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}})
	b.setShortExpiry(t, op.Fault{})
	relyingParty, err := rp.Discover(t.Context(), b.server.Issuer, b.server.ClientID, b.server.ClientSecret, redirectURI, "openid")
	if err != nil {
		t.Fatal(err)
	}
	b.validator = &tokenValidator{valid: map[string]bool{}, expired: map[string]bool{}, validAtServer: func(token string) bool {
		_, err := relyingParty.UserInfo(t.Context(), token)
		return err == nil
	}}
	b.app = echo.Start(t, echo.Options{Check: b.validator.check})
	caddyserver.Start(t, protected(site, &b.server.Server, "refresh_timeout 50s", b.app))
	return b
}

// setShortExpiry sets expires_in of all token answers from now on to shortLife. The first refresh also gets the given fault.
func (b *burstRig) setShortExpiry(t *testing.T, refresh op.Fault) {
	short := op.Fault{Times: 1 << 20, Set: map[string]any{"expires_in": shortLife.Seconds()}}
	refresh.GrantType, refresh.Set = "refresh_token", short.Set
	b.server.ClearFaults(t)
	b.server.Fault(t, refresh)
	b.server.Fault(t, short)
}

func (b *burstRig) refreshes(t *testing.T) int { return b.server.Stats(t).Grants["refresh_token"].OK }

// expire waits until the session's token has expired. If a refresh of the last burst ends during the wait, it waits for the
// new token's expiry, too.
func (b *burstRig) expire(t *testing.T) {
	for before := -1; before != b.refreshes(t); {
		before = b.refreshes(t)
		b.validator.expireAll(shortLife)
	}
}

// run sends bursts of requests with expired tokens. burst returns the answers and the earliest time of the refresh.
func (b *burstRig) run(t *testing.T, burst func() ([]answer, time.Time)) {
	for cycle := range burstCycles {
		b.expire(t)
		before := b.refreshes(t)
		answers, start := burst()
		took := time.Since(start)
		if len(answers) != burstSize {
			t.Fatalf("cycle %d: got %d answers, want %d", cycle, len(answers), burstSize)
		}
		tokens := map[string]bool{}
		for _, a := range answers {
			if a.status != http.StatusOK || a.token == "" {
				t.Fatalf("cycle %d: got status %d and token %q, want 200 and a token", cycle, a.status, a.token)
			}
			tokens[a.token] = true
		}
		// The proxy refreshes the new token after 70 % of its lifetime, which may be during the burst on a busy machine.
		most := 1 + int(took/(shortLife*7/10))
		if n := b.refreshes(t) - before; n < 1 || n > most {
			t.Errorf("cycle %d: got %d refreshes within %v, want 1 to %d", cycle, n, took, most)
		}
		if len(tokens) > most {
			t.Errorf("cycle %d: the app got %d tokens within %v, want at most %d", cycle, len(tokens), took, most)
		}
	}
	stats := b.server.Stats(t)
	if stats.RepeatedRefreshTokens != 0 || stats.ReuseDetected != 0 || stats.Grants["refresh_token"].Errors != 0 {
		t.Errorf("got stats %+v, want no refresh token sent twice and no refusals", stats)
	}
	if n := stats.Requests["GET /auth"]; n != 1 {
		t.Errorf("got %d logins, want 1", n)
	}
	if n := b.app.Rejected(); n != 0 {
		t.Errorf("the app got %d requests with invalid tokens, want none", n)
	}
}

// TestBurst sends 200 requests on as many connections to a session with an expired token. The server answers the refresh
// only after all requests have been sent.
func TestBurst(t *testing.T) {
	t.Parallel()
	b := startBurstRig(t)
	c := login(t, &b.server.Server, b.site+"/")
	b.run(t, func() ([]answer, time.Time) {
		b.setShortExpiry(t, op.Fault{Hold: true})
		start := time.Now() // a token's lifetime counts from the request for it
		var sent, done sync.WaitGroup
		answers := make([]answer, burstSize)
		for i := range answers {
			sent.Add(1)
			once := sync.OnceFunc(sent.Done)
			done.Go(func() {
				defer once() // also if sending fails
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { once() }})
				answers[i] = fetchAnswer(ctx, t, c, b.site+"/api")
			})
		}
		sent.Wait()
		b.server.AwaitHeld(t, 1)
		b.server.Release(t)
		done.Wait()
		return answers, start
	})
}

func fetchAnswer(ctx context.Context, t *testing.T, c *client.Client, rawURL string) answer {
	resp, err := c.Fetch(ctx, http.MethodGet, rawURL, "")
	if err != nil {
		t.Error(err)
		return answer{}
	}
	return answer{resp.Status, bearer(resp)}
}

// TestBurstFromBrowser sends the bursts with fetch() in a real page. Chromium sends six requests at a time.
func TestBurstFromBrowser(t *testing.T) {
	t.Parallel()
	b := startBurstRig(t)
	_, page := browser.Start(t)
	if doc := page.Open(t, b.site+"/"); doc.Status != http.StatusOK || doc.URL != b.site+"/" {
		t.Fatalf("login: got %+v, want the app's page", doc)
	}
	b.run(t, func() ([]answer, time.Time) {
		start := time.Now()
		var answers []answer
		for _, r := range page.FetchAll(t, "/api", browser.Request{}, burstSize) {
			answers = append(answers, answer{r.Status, bearerIn(r.Status, []byte(r.Body))})
		}
		return answers, start
	})
}
