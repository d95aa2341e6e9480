// Package caddyoauthsession is what xcaddy builds into Caddy: it registers the
// module http.handlers.oauth_session and the Caddyfile directive oauth_session.
// See the README for what it does, and package caddymodule for how it is
// configured.
package caddyoauthsession

import (
	// The module registers itself.
	_ "github.com/oauth-session/caddy-oauth-session/caddymodule"
)
