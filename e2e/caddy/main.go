// Command caddy is Caddy with the module under test, as xcaddy would build it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/oauth-session/caddy-oauth-session"
)

func main() {
	caddycmd.Main()
}
