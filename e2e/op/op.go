// Package op runs real authorization servers for the tests: node oidc-provider, the example server of zitadel/oidc, and Dex.
//
// Each is installed once (package build), listens on a free loopback port, keeps its data in memory, and stops with the
// test that started it. The strict judge of token use is oidc-provider: its refresh tokens serve once, and a second use
// revokes the whole family. Dex names a dead refresh token invalid_request, and keeps only one per user and client.
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
	ClientSecret string // to be sent by client_secret_basic
	User         string // for the login form, if there is one
	Password     string
	Process      *proc.Process
}

// Install builds and installs all servers. The tests do it by themselves; to do it first keeps the wait out of them.
func Install(ctx context.Context) error {
	_, err := installOIDCProvider()
	_, errZitadel := zitadelProgram.Once(ctx)
	_, errDex := dexProgram.Once(ctx)
	return errors.Join(err, errZitadel, errDex)
}
