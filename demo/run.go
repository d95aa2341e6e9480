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

// stopLimit is how long a part may take to end in order.
const stopLimit = 5 * time.Second

// demo is one run of everything.
type demo struct {
	checkout      string
	caddy         string // an executable; built from the checkout when empty
	tokenLifetime time.Duration
	out           io.Writer // for people
}

// setting is what the parts know of each other.
type setting struct {
	site         string // origin, as browsers see it
	listen       string // host and port where the site listens
	app          string // host and port
	issuer       string
	clientSecret string
}

// part runs a piece of the demo until ctx is over or the piece ends by itself, which is an error that names it. When it
// returns, nothing of the piece is left.
type part func(ctx context.Context) error

// run returns nil when it ends because ctx is over, at whatever moment.
func (d demo) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "oauth-session-demo-")
	if err != nil {
		return fmt.Errorf("making a directory for the data: %w", err)
	}
	err = d.runIn(ctx, dir)
	if ctx.Err() != nil {
		err = nil
	}
	if e := os.RemoveAll(dir); e != nil {
		err = errors.Join(err, fmt.Errorf("removing the data: %w", e))
	}
	if err == nil {
		fmt.Fprintln(d.out, "\nThe demo has ended. Its sessions and keys are removed.")
	}
	return err
}

// runIn keeps everything in dir, for the caller to remove.
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

	s := setting{
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

// runTogether runs the parts until the first one returns or ctx is over, then ends the others. It returns the error of
// the first.
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
