// Package caddyserver runs Caddy with the module under test as a child process. Tests start it with a Caddyfile, reload
// it, kill it and restart it on the same data.
package caddyserver

import (
	"context"
	"os"
	"sync"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
)

// Binary builds Caddy with the module once per test program and returns its path. CADDY_RACE=1 in the environment
// enables the race detector.
var Binary = sync.OnceValues(func() (string, error) {
	// The flags of xcaddy.build, so that the two share Go's build cache.
	program := build.GoProgram{Name: "caddy", Dir: "caddy", Flags: []string{"-trimpath", "-tags=nobadger,nomysql,nopgx"}}
	variant := ""
	if os.Getenv("CADDY_RACE") == "1" {
		program.Flags = append(program.Flags, "-race")
		variant = "-race"
	}
	return program.Always(context.Background(), variant)
})
