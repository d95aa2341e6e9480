package fleet

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
)

// cookieName is what the module calls its cookie by default.
const cookieName = "__Host-oauth_session"

// appCookie is the cookie of an app that keeps sessions of its own, as long as
// ours: so the same number of bytes comes in with each request, whoever keeps the
// sessions. It is passed on to the app, where ours is taken off.
const appCookie = "__Host-app_session_1=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Login logs n browsers in at a subject, and returns their Cookie headers.
func (f *Fleet) Login(ctx context.Context, s *Subject, n int) ([]string, error) {
	shared := &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}
	defer shared.CloseIdleConnections()
	cookies := make([]string, n)
	errs := make(chan error, n)
	turns := make(chan struct{}, 16)
	var all sync.WaitGroup
	for i := range cookies {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			var err error
			if cookies[i], err = login(ctx, shared, s.Host, s.cookie()); err != nil {
				errs <- err
			}
		})
	}
	all.Wait()
	close(errs)
	return cookies, <-errs // nil if there is none
}

func login(ctx context.Context, shared http.RoundTripper, host, name string) (string, error) {
	browser := client.New("", "") // the issuer asks for nothing
	browser.Through(shared, host, func() string { return "127.0.0.1:" + port(host) })
	page, err := browser.Login(ctx, "http://"+host+"/200")
	if err != nil {
		return "", fmt.Errorf("logging in: %w", err)
	}
	cookie := browser.Jar.Cookie(&url.URL{Scheme: "http", Host: host, Path: "/"}, name)
	if page.Status != http.StatusOK || cookie == nil {
		return "", fmt.Errorf("logging in: it ended with %v", page)
	}
	return cookie.Name + "=" + cookie.Value, nil
}
