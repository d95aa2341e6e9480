// Package caddyserver runs Caddy with the module under test as a process of its own: started with a Caddyfile, reloaded,
// killed and started again on the same data.
package caddyserver

import (
	"context"
	"os"
	"sync"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
)

// Binary builds Caddy with the module, once for each run of a test program, and returns its path. With CADDY_RACE=1 in the
// environment it is built with the race detector.
var Binary = sync.OnceValues(func() (string, error) {
	// As xcaddy builds it, so that the two share Go's build cache.
	program := build.GoProgram{Name: "caddy", Dir: "caddy", Flags: []string{"-trimpath", "-tags=nobadger,nomysql,nopgx"}}
	variant := ""
	if os.Getenv("CADDY_RACE") == "1" {
		program.Flags = append(program.Flags, "-race")
		variant = "-race"
	}
	return program.Always(context.Background(), variant)
})
