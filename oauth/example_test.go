package oauth_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

const (
	clientID     = "app"
	clientSecret = "s3cret"
	redirectURI  = "https://app.example.com/oauth2/callback"
)

// A login and a refresh. The client discovers the endpoints and the keys of the
// server by its issuer identifier.
func Example() {
	issuer, stop := startAuthorizationServer()
	defer stop()
	ctx := context.Background()

	client, err := oauth.New(oauth.Config{
		Issuer:       issuer,
		ClientID:     clientID,
		ClientSecret: func() (string, error) { return clientSecret, nil },
		Scopes:       []string{"openid", "offline_access"},
	})
	if err != nil {
		log.Fatal(err)
	}

	// Keep these values, for example in a sealed cookie, until the browser returns.
	request := oauth.AuthorizationRequest{
		RedirectURI: redirectURI,
		State:       rand.Text(),
		Nonce:       rand.Text(),
		Verifier:    rand.Text() + rand.Text(), // at least 43 characters
	}
	target, err := client.AuthorizationURL(ctx, request)
	if err != nil {
		log.Fatal(err)
	}

	// The server redirects the browser to the redirect URI with these parameters.
	callback := visit(target)
	if callback.Get("state") != request.State {
		log.Fatal("the response belongs to another login")
	}
	if err := client.CheckIssuer(ctx, callback["iss"]); err != nil {
		log.Fatal(err)
	}
	tokens, err := client.RedeemCode(ctx, callback.Get("code"), request.Verifier, request.RedirectURI)
	if err != nil {
		log.Fatal(err)
	}
	idToken, err := client.VerifyIDToken(ctx, tokens.IDToken, oauth.IDTokenExpectation{
		Nonce: request.Nonce, AccessToken: tokens.AccessToken,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in:", idToken.Subject)

	// Before tokens.Expires:
	renewed, err := client.Refresh(ctx, tokens.RefreshToken, nil)
	if tokenErr, ok := errors.AsType[*oauth.TokenError](err); ok && tokenErr.Kind == oauth.Rejected {
		log.Fatal("the refresh token is no longer valid: the user must log in again")
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("new access token:", renewed.AccessToken != tokens.AccessToken)

	// Output:
	// logged in: alice
	// new access token: true
}

// startAuthorizationServer returns the issuer identifier of a server that logs
// alice in without a page.
func startAuthorizationServer() (issuer string, stop func()) {
	as := fakeas.New(fakeas.Options{Clients: []fakeas.Client{{
		ID: clientID, Secret: clientSecret, RedirectURIs: []string{redirectURI},
	}}})
	server := httptest.NewServer(as)
	as.URL = server.URL
	return server.URL, func() {
		as.Close()
		server.Close()
	}
}

// visit stands in for the browser. It returns the query of the callback.
func visit(target string) url.Values {
	browser := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := browser.Get(target)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	callback, err := resp.Location()
	if err != nil {
		log.Fatal(err)
	}
	return callback.Query()
}
