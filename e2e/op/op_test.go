package op_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/rp"
)

// callback returns a redirect URI with a server that answers 200.
func callback(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	return server.URL + "/oauth2/callback"
}

// login logs in over the server's pages with a new browser and returns the client and its tokens.
func login(t *testing.T, s *op.Server, redirectURI, scope string) (*rp.Client, rp.Tokens) {
	t.Helper()
	app := discover(t, s, redirectURI, scope)
	return app, loginAs(t, app, client.New(s.User, s.Password))
}

func discover(t *testing.T, s *op.Server, redirectURI, scope string) *rp.Client {
	t.Helper()
	app, err := rp.Discover(t.Context(), s.Issuer, s.ClientID, s.ClientSecret, redirectURI, scope)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func loginAs(t *testing.T, app *rp.Client, browser *client.Client) rp.Tokens {
	t.Helper()
	attempt := app.Authorize()
	page, err := browser.LoginTo(t.Context(), attempt.URL, app.RedirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := app.Redeem(t.Context(), attempt, page.URL.Query())
	if err != nil {
		t.Fatal(err)
	}
	if tokens.AccessToken == "" || tokens.IDToken == "" || tokens.RefreshToken == "" {
		t.Fatalf("got tokens %+v, want an access, an ID and a refresh token", tokens)
	}
	return tokens
}

// wantRefusal sends a refresh that the server must refuse and returns the error code.
func wantRefusal(t *testing.T, app *rp.Client, refreshToken string) string {
	t.Helper()
	_, err := app.Refresh(t.Context(), refreshToken)
	var refusal *rp.ServerError
	if !errors.As(err, &refusal) {
		t.Fatalf("got error %v, want a refusal", err)
	}
	return refusal.Code
}

func refresh(t *testing.T, app *rp.Client, refreshToken string) rp.Tokens {
	t.Helper()
	tokens, err := app.Refresh(t.Context(), refreshToken)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// TestServersLogInRotateAndDetectReuse tests each server without the proxy: a login over its pages, a rotation, and the
// second use of a refresh token.
func TestServersLogInRotateAndDetectReuse(t *testing.T) {
	oidcProvider := func(forms bool) func(*testing.T, string) *op.Server {
		return func(t *testing.T, redirectURI string) *op.Server {
			return &op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}, Forms: forms}).Server
		}
	}
	for _, tc := range []struct {
		name        string
		start       func(*testing.T, string) *op.Server
		reuseError  string
		familyLives bool
	}{
		{name: "oidc-provider", start: oidcProvider(false), reuseError: "invalid_grant"},
		{name: "oidc-provider with forms", start: oidcProvider(true), reuseError: "invalid_grant"},
		{
			name:       "zitadel",
			start:      func(t *testing.T, redirectURI string) *op.Server { return op.Zitadel(t, redirectURI, 0) },
			reuseError: "invalid_grant", familyLives: true,
		},
		{
			name:       "dex",
			start:      func(t *testing.T, redirectURI string) *op.Server { return op.Dex(t, redirectURI, 0) },
			reuseError: "invalid_request", familyLives: true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			redirectURI := callback(t)
			app, first := login(t, tc.start(t, redirectURI), redirectURI, "openid offline_access")
			if claims, err := app.UserInfo(t.Context(), first.AccessToken); err != nil || claims["sub"] == nil {
				t.Errorf("userinfo: got claims %v and error %v, want a subject", claims, err)
			}
			second := refresh(t, app, first.RefreshToken)
			if second.RefreshToken == first.RefreshToken || second.RefreshToken == "" {
				t.Errorf("refresh: got refresh token %q, want a new one", second.RefreshToken)
			}
			if code := wantRefusal(t, app, first.RefreshToken); code != tc.reuseError {
				t.Errorf("second use: got error code %q, want %q", code, tc.reuseError)
			}
			if _, err := app.Refresh(t.Context(), second.RefreshToken); (err == nil) != tc.familyLives {
				t.Errorf("refresh with the newest token after the second use: got error %v, want success: %t", err, tc.familyLives)
			}
		})
	}
}

func TestOIDCProviderCountsReuse(t *testing.T) {
	t.Parallel()
	redirectURI := callback(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}})
	app, first := login(t, &p.Server, redirectURI, "openid")
	refresh(t, app, first.RefreshToken)
	if s := p.Stats(t); s.Grants["refresh_token"].OK != 1 || s.RepeatedRefreshTokens != 0 || s.ReuseDetected != 0 {
		t.Errorf("after one refresh: got stats %+v", s)
	}
	wantRefusal(t, app, first.RefreshToken)
	s := p.Stats(t)
	if s.Grants["refresh_token"].OK != 1 || s.Grants["refresh_token"].Errors != 1 || s.RepeatedRefreshTokens != 1 || s.ReuseDetected != 1 {
		t.Errorf("after the second use: got stats %+v", s)
	}
	if s.Grants["authorization_code"].OK != 1 || s.Requests["POST /token"] != 3 {
		t.Errorf("got stats %+v, want one login and three token requests", s)
	}
}

func TestOIDCProviderOptionsTakeEffect(t *testing.T) {
	t.Parallel()
	redirectURI := callback(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs:      []string{redirectURI},
		KeepRefreshTokens: true,
		Clients:           []map[string]any{{"client_id": "public", "token_endpoint_auth_method": "none"}},
	})
	app, tokens := login(t, &p.Server, redirectURI, "openid")
	if again := refresh(t, app, tokens.RefreshToken); again.RefreshToken != tokens.RefreshToken {
		t.Errorf("KeepRefreshTokens: got refresh token %q, want the same one", again.RefreshToken)
	}
	p.SetAccessTokenLifetime(t, 7*time.Second)
	if again := refresh(t, app, tokens.RefreshToken); again.ExpiresIn != 7 {
		t.Errorf("got expires_in %d, want 7", again.ExpiresIn)
	}
	p.DisableAccounts(t, "alice")
	if code := wantRefusal(t, app, tokens.RefreshToken); code != "invalid_grant" {
		t.Errorf("disabled account: got error code %q, want invalid_grant", code)
	}
	p.DisableAccounts(t)
	public := p.Server
	public.ClientID, public.ClientSecret = "public", ""
	login(t, &public, redirectURI, "openid")
}

func TestOIDCProviderFaultsStrikeBeforeOrAfterRotation(t *testing.T) {
	t.Parallel()
	redirectURI := callback(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}})
	app := discover(t, &p.Server, redirectURI, "openid")
	browser := client.New("", "")

	for _, tc := range []struct {
		name       string
		fault      op.Fault
		wantStatus int  // 0: no answer
		tokenLives bool // the server has not rotated the refresh token
	}{
		{name: "no answer", fault: op.Fault{Drop: true}, tokenLives: true},
		{name: "lost answer", fault: op.Fault{Drop: true, After: true}},
		{name: "busy", fault: op.Fault{Status: 503, Body: "<p>busy", Headers: map[string]string{"Retry-After": "1"}}, wantStatus: 503, tokenLives: true},
		{name: "error after the work", fault: op.Fault{Status: 500, After: true}, wantStatus: 500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tokens := loginAs(t, app, browser)
			tc.fault.GrantType = "refresh_token"
			p.Fault(t, tc.fault)
			_, err := app.Refresh(t.Context(), tokens.RefreshToken)
			var answer *rp.ServerError
			switch {
			case err == nil:
				t.Fatal("refresh with a fault: got no error, want one")
			case errors.As(err, &answer) != (tc.wantStatus != 0), answer != nil && answer.Status != tc.wantStatus:
				t.Errorf("got error %v, want status %d", err, tc.wantStatus)
			}
			if _, err := app.Refresh(t.Context(), tokens.RefreshToken); (err == nil) != tc.tokenLives {
				t.Errorf("next refresh with the same token: got error %v, want success: %t", err, tc.tokenLives)
			}
		})
	}

	t.Run("changed answer", func(t *testing.T) {
		tokens := loginAs(t, app, browser)
		p.Fault(t, op.Fault{GrantType: "refresh_token", Set: map[string]any{"expires_in": 1}, Remove: []string{"refresh_token"}})
		if again := refresh(t, app, tokens.RefreshToken); again.ExpiresIn != 1 || again.RefreshToken != "" {
			t.Errorf("got answer %+v, want expires_in 1 and no refresh token", again)
		}
	})
}

func TestOIDCProviderHoldsRequestsUntilRelease(t *testing.T) {
	t.Parallel()
	redirectURI := callback(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}})
	app, tokens := login(t, &p.Server, redirectURI, "openid")
	p.Fault(t, op.Fault{GrantType: "refresh_token", Hold: true})
	done := make(chan error, 1)
	go func() {
		_, err := app.Refresh(context.WithoutCancel(t.Context()), tokens.RefreshToken)
		done <- err
	}()
	p.AwaitHeld(t, 1)
	select {
	case err := <-done:
		t.Fatalf("before Release: got an answer with error %v, want none", err)
	default:
	}
	p.Release(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOIDCProviderKeepsTokensOverAnOutage(t *testing.T) {
	t.Parallel()
	redirectURI := callback(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{RedirectURIs: []string{redirectURI}})
	app, tokens := login(t, &p.Server, redirectURI, "openid")
	p.Down(t)
	var refusal *rp.ServerError
	if _, err := app.Refresh(t.Context(), tokens.RefreshToken); err == nil || errors.As(err, &refusal) {
		t.Errorf("got error %v, want a failed connection", err)
	}
	p.Up(t)
	refresh(t, app, tokens.RefreshToken)
}

func TestOIDCProviderLogoutNotifiesTheApp(t *testing.T) {
	t.Parallel()
	tokens := make(chan string, 1)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/backchannel" {
			tokens <- r.PostFormValue("logout_token")
		}
	}))
	t.Cleanup(app.Close)
	redirectURI := app.URL + "/oauth2/callback"
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs:           []string{redirectURI},
		PostLogoutRedirectURIs: []string{app.URL + "/bye"},
		BackchannelLogoutURI:   app.URL + "/backchannel",
	})
	browser := client.New(p.User, p.Password)
	relyingParty := discover(t, &p.Server, redirectURI, "openid")
	session := loginAs(t, relyingParty, browser)
	page, err := browser.LoginTo(t.Context(), relyingParty.EndSessionURL(session.IDToken, app.URL+"/bye"), app.URL+"/bye")
	if err != nil {
		t.Fatal(err)
	}
	if page.URL.Path != "/bye" {
		t.Errorf("the logout ended at %s, want /bye", page.URL)
	}
	// The server redirects the browser only after the back-channel request.
	select {
	case token := <-tokens:
		if token == "" {
			t.Error("the back-channel logout has no logout_token")
		}
	default:
		t.Errorf("got no back-channel logout, want one; stats %+v", p.Stats(t))
	}
	wantRefusal(t, relyingParty, session.RefreshToken)
}
