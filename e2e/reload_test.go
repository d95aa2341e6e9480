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

// reloads is the number of reloads in TestReload.
const reloads = 20

// TestReload reloads the configuration many times while users send requests, their tokens are refreshed, and other users are
// at the login form.
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
	var running sync.WaitGroup
	var answers atomic.Int64
	var clients []*client.Client
	for range users {
		c := login(t, &p.Server, site+"/")
		c.Reconnect = true
		clients = append(clients, c)
		running.Go(func() { sendRequests(ctx, t, c, site+"/api", &answers) })
	}
	for n := range reloads {
		wanted := fmt.Sprintf("%s/half/%d", site, n)
		c := client.New(p.User, p.Password)
		c.Reconnect = true
		form, err := c.Visit(t.Context(), wanted)
		if err != nil {
			t.Fatal(err)
		}
		before := answers.Load()
		if err := caddy.Reload(t, config(n+1)); err != nil {
			t.Fatal(err)
		}
		page, err := c.Finish(t.Context(), form, wanted)
		if err != nil {
			t.Fatal(err)
		}
		wantAppPage(t, page, wanted)
		if got := page.Header.Get("X-Config"); got != fmt.Sprint(n+1) {
			t.Errorf("after reload %d: got configuration %s, want %d", n+1, got, n+1)
		}
		eventually(t, "answers after the reload", func() bool { return answers.Load() >= before+users })
		clients = append(clients, c)
	}
	eventually(t, "refreshes under load", func() bool { return p.Stats(t).Grants["refresh_token"].OK >= 2*users })
	cancel()
	running.Wait()
	for i, c := range clients {
		if resp := fetch(t, c, site+"/after"); bearer(resp) == "" {
			t.Errorf("session %d after all reloads: got %v, want the app's answer", i, resp)
		}
	}
	stats := p.Stats(t)
	if n := stats.Requests["GET /auth"]; n != users+reloads || stats.Grants["authorization_code"].OK != n {
		t.Errorf("got %d started and %d completed logins, want %d of each", n, stats.Grants["authorization_code"].OK, users+reloads)
	}
	if stats.RepeatedRefreshTokens != 0 || len(stats.GrantErrors) != 0 {
		t.Errorf("got stats %+v, want no refresh token sent twice and no refusals", stats)
	}
}

// sendRequests sends requests until ctx ends and counts the answers. Each request must reach the app with a token.
func sendRequests(ctx context.Context, t *testing.T, c *client.Client, rawURL string, answers *atomic.Int64) {
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		resp, err := c.Fetch(ctx, http.MethodGet, rawURL, "")
		if ctx.Err() != nil {
			return
		}
		if err != nil || bearer(resp) == "" {
			t.Errorf("request during a reload: got %v and error %v, want the app's answer", resp, err)
			return
		}
		answers.Add(1)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// expireDuringHeldRefresh sends requests until the server, which has a fault to hold refreshes, holds one. It then waits until
// the session's token, which lives for heldLife, has expired. It abandons the last request.
func expireDuringHeldRefresh(t *testing.T, p *op.OIDCProvider, c *client.Client, rawURL string) {
	t.Helper()
	ctx, abandon := context.WithCancel(t.Context())
	defer abandon()
	requests := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = c.Fetch(ctx, http.MethodGet, rawURL, "")
		}
		requests <- err
	}()
	p.AwaitHeld(t, 1)
	abandon()
	if err := <-requests; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	time.Sleep(heldRest)
}

// TestReloadDuringRefresh reloads while the server holds a refresh: requests to the former and to the new configuration wait
// for the same refresh.
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
		t.Errorf("got answers %+v and %+v, want the same token", one, two)
	}
	stats := p.Stats(t)
	if stats.Grants["refresh_token"].OK != 1 || stats.RepeatedRefreshTokens != 0 || stats.Requests["GET /auth"] != 1 {
		t.Errorf("got stats %+v, want one refresh and one login", stats)
	}
}
