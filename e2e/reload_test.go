package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// reloads is how often the configuration is replaced under load.
const reloads = 20

// TestReload replaces the configuration again and again while users work, their tokens are refreshed, and others are in the
// middle of their login.
func TestReload(t *testing.T) {
	t.Parallel()
	const users = 4
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs: []string{site + "/oauth2/callback"}, AccessTokenLifetime: shortLife, Forms: true,
	})
	app := echo.Start(t, echo.Options{})
	config := func(n int) caddyserver.Config {
		c := protected(site, &p.Server, "", app)
		c.Sites = strings.Replace(c.Sites, "reverse_proxy", fmt.Sprintf("header X-Config %d\nreverse_proxy", n), 1)
		return c
	}
	caddy := caddyserver.Start(t, config(0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var working sync.WaitGroup
	var answered atomic.Int64
	var clients []*client.Client
	for range users {
		c := login(t, &p.Server, site+"/")
		c.Reconnect = true
		clients = append(clients, c)
		working.Go(func() { sendRequests(ctx, t, c, site+"/api", &answered) })
	}
	for n := range reloads {
		wanted := fmt.Sprintf("%s/half/%d", site, n)
		c := client.New(p.User, p.Password)
		c.Reconnect = true
		form, err := c.Visit(t.Context(), wanted)
		if err != nil {
			t.Fatal(err)
		}
		before := answered.Load()
		if err := caddy.Reload(t, config(n+1)); err != nil {
			t.Fatal(err)
		}
		page, err := c.Finish(t.Context(), form, wanted)
		if err != nil {
			t.Fatal(err)
		}
		wantAppPage(t, page, wanted)
		if got := page.Header.Get("X-Config"); got != fmt.Sprint(n+1) {
			t.Errorf("after reload %d configuration %s answers", n+1, got)
		}
		eventually(t, "work after the reload", func() bool { return answered.Load() >= before+users })
		clients = append(clients, c)
	}
	eventually(t, "refreshes under load", func() bool { return p.Stats(t).Grants["refresh_token"].OK >= 2*users })
	cancel()
	working.Wait()
	for i, c := range clients {
		if resp := fetch(t, c, site+"/after"); bearer(resp) == "" {
			t.Errorf("session %d after all reloads: %v", i, resp)
		}
	}
	stats := p.Stats(t)
	if n := stats.Requests["GET /auth"]; n != users+reloads || stats.Grants["authorization_code"].OK != n {
		t.Errorf("got %d logins begun and %d completed, want %d of each", n, stats.Grants["authorization_code"].OK, users+reloads)
	}
	if stats.RepeatedRefreshTokens != 0 || len(stats.GrantErrors) != 0 {
		t.Errorf("refresh tokens were sent twice, or refused: %+v", stats)
	}
}

// work sends request after request, each of which has to reach the app with a token.
func sendRequests(ctx context.Context, t *testing.T, c *client.Client, rawURL string, answered *atomic.Int64) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for {
		resp, err := c.Fetch(ctx, http.MethodGet, rawURL, "")
		if ctx.Err() != nil {
			return
		}
		if err != nil || bearer(resp) == "" {
			t.Errorf("a request during a reload: got %v and error %v", resp, err)
			return
		}
		answered.Add(1)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
	}
}

// expireDuring asks until the server, told before to hold refreshes, holds one, and then waits until the session's token,
// which lives for heldLife, has expired. The last request is left without an answer.
func expireDuringHeldRefresh(t *testing.T, p *op.OIDCProvider, c *client.Client, rawURL string) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	asked := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = c.Fetch(ctx, http.MethodGet, rawURL, "")
		}
		asked <- err
	}()
	p.AwaitHeld(t, 1)
	leave()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	time.Sleep(heldRest) // what is waited for is the expiry itself
}

// TestReloadDuringRefresh reloads while the server thinks about a refresh: requests to the old and to the new
// configuration wait for the same one.
func TestReloadDuringRefresh(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs: []string{site + "/oauth2/callback"}, AccessTokenLifetime: heldLife,
	})
	app := echo.Start(t, echo.Options{})
	config := protected(site, &p.Server, "refresh_timeout 50s", app)
	caddy := caddyserver.Start(t, config)
	p.Fault(t, op.Fault{GrantType: "refresh_token", Hold: true})
	c := login(t, &p.Server, site+"/")
	c.Reconnect = true
	p.SetAccessTokenLifetime(t, longLife)
	expireDuringHeldRefresh(t, p, c, site+"/early")
	answers := make(chan answer, 2)
	sent := make(chan struct{})
	wrote := sync.OnceFunc(func() { close(sent) })
	old := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { wrote() },
	})
	go func() { answers <- fetchAnswer(old, t, c, site+"/old") }()
	<-sent
	if err := caddy.Reload(t, config); err != nil {
		t.Fatal(err)
	}
	go func() { answers <- fetchAnswer(t.Context(), t, c.Twin(), site+"/new") }()
	p.Release(t)
	one, two := <-answers, <-answers
	if one.token == "" || one != two {
		t.Errorf("the requests got %v and %v", one, two)
	}
	stats := p.Stats(t)
	if stats.Grants["refresh_token"].OK != 1 || stats.RepeatedRefreshTokens != 0 || stats.Requests["GET /auth"] != 1 {
		t.Errorf("want one refresh and one login: %+v", stats)
	}
}
