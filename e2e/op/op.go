// Package op runs real authorization servers for the tests: node oidc-provider, the example server of zitadel/oidc, and Dex.
//
// Package build installs each server once. A server listens on a free loopback port, keeps its data in memory and stops
// at the end of its test. The strictest one is oidc-provider: its refresh tokens are single use, and a second use revokes
// the whole family. Dex refuses a dead refresh token with invalid_request and keeps one refresh token per user and client.
package op

import (
	"context"
	"errors"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// A Server is a running authorization server with one client registered.
type Server struct {
	Issuer       string
	ClientID     string
	ClientSecret string // for client_secret_basic
	User         string // for the login form; "" without one
	Password     string
	Process      *proc.Process
}

// Install builds and installs all servers. Without this call, the first test of each server does it.
func Install(ctx context.Context) error {
	_, err := installOIDCProvider()
	_, errZitadel := zitadelProgram.Once(ctx)
	_, errDex := dexProgram.Once(ctx)
	return errors.Join(err, errZitadel, errDex)
}
