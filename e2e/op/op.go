// Package op runs real authorization servers for the tests: node oidc-provider, the example server of zitadel/oidc, Dex,
// Django OAuth Toolkit, Glewlwyd, Ory Hydra and Keycloak.
//
// Package build installs each server once. A server listens on a free loopback port, keeps its data in memory or in a
// directory of the test, and stops at the end of its test. The strictest one is oidc-provider: its refresh tokens are
// single use, and a second use revokes the whole family. Dex refuses a dead refresh token with invalid_request and keeps
// one refresh token per user and client.
package op

import (
	"context"
	"errors"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// KeyedClient is the client of some servers that authenticates with private_key_jwt.
const KeyedClient = "keyed"

// A Server is a running authorization server with one client registered.
type Server struct {
	Issuer       string
	DiscoveryURL string // of the metadata, if it is not at the issuer's usual address
	ClientID     string
	ClientSecret string // for client_secret_basic
	User         string // for the login form; "" without one
	Password     string
	SignOutURL   string // on which a user logs out at the server; "" if there is none
	Process      *proc.Process

	login func(ctx context.Context, browser *client.Client, rawURL string) (*client.Response, error) // nil: by forms
}

// Login opens the URL, follows redirects and logs the user of the browser in. It returns the page after the login.
func (s *Server) Login(ctx context.Context, browser *client.Client, rawURL string) (*client.Response, error) {
	if s.login != nil {
		return s.login(ctx, browser, rawURL)
	}
	return browser.Login(ctx, rawURL)
}

// Install builds and installs the servers of make test. Without this call, the first test of each server does it.
func Install(ctx context.Context) error {
	_, err := installOIDCProvider()
	_, errZitadel := zitadelProgram.Once(ctx)
	_, errDex := dexProgram.Once(ctx)
	_, errDebian := debianServers(ctx)
	if errors.Is(errDebian, errNoDebian) {
		errDebian = nil // the tests are skipped
	}
	return errors.Join(err, errZitadel, errDex, errDebian)
}
