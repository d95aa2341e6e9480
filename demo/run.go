package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// stopLimit bounds the time in which a part ends after the end of its context.
const stopLimit = 5 * time.Second

// demo is one run of the demo.
type demo struct {
	checkout      string        // its root directory
	caddy         string        // path of an executable; empty: build it from the checkout
	tokenLifetime time.Duration // of access tokens
	out           io.Writer     // for the user
}

// addresses connect the parts of the demo.
type addresses struct {
	site         string // origin, as browsers see it
	listen       string // host and port of the site
	app          string // host and port
	issuer       string
	clientSecret string
}

// part runs a part of the demo until the end of ctx. If the part ends earlier, the error names it. No process, goroutine
// or listener of the part remains when the function returns.
type part func(ctx context.Context) error

// run runs the demo until the end of ctx, and then returns nil. It removes all data.
func (d demo) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "oauth-session-demo-")
	if err != nil {
		return fmt.Errorf("creating a directory for the data: %w", err)
	}
	err = d.runIn(ctx, dir)
	if ctx.Err() != nil {
		err = nil
	}
	if e := os.RemoveAll(dir); e != nil {
		err = errors.Join(err, fmt.Errorf("removing the data: %w", e))
	}
	if err == nil {
		fmt.Fprintln(d.out, "\nThe demo has ended and has removed its sessions and keys.")
	}
	return err
}

// runIn runs the demo with its data in dir. The caller removes dir.
func (d demo) runIn(ctx context.Context, dir string) error {
	caddy, err := d.findCaddy(ctx, dir)
	if err != nil {
		return err
	}
	site, err := d.freePort("the site", 8080)
	if err != nil {
		return err
	}
	app, err := d.listen("the app", 8081)
	if err != nil {
		return err
	}
	defer app.Close()
	issuer, err := d.listen("the login server", 9980)
	if err != nil {
		return err
	}
	defer issuer.Close()

	s := addresses{
		site:         fmt.Sprintf("http://localhost:%d", site),
		listen:       loopback(site),
		app:          app.Addr().String(),
		issuer:       "http://" + issuer.Addr().String(),
		clientSecret: rand.Text(),
	}
	proxy, err := configure(ctx, caddy, filepath.Join(d.checkout, "Caddyfile.example"), dir, s)
	if err != nil {
		return err
	}
	return runTogether(ctx,
		serve("the login server", issuer, newAuthorizationServer(s, d.tokenLifetime)),
		serve("the app", app, newApp(s.issuer)),
		proxy.run,
		func(ctx context.Context) error { return d.announce(ctx, s) },
	)
}

// runTogether runs the parts until the first one returns or ctx ends, then ends the others. It returns the first error.
func runTogether(ctx context.Context, parts ...part) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, run := range parts {
		all.Go(func() { cancel(run(ctx)) })
	}
	all.Wait()
	return context.Cause(ctx)
}
