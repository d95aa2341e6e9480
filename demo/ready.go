package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// announce is the part that prints the demo's addresses once the site answers.
func (d demo) announce(ctx context.Context, s addresses) error {
	if err := awaitSite(ctx, s); err != nil {
		return err
	}
	fmt.Fprintf(d.out, `
Open      %s
User      %s
Password  %s

The login server is %s, the app %s.
Access tokens live for %v: watch Caddy refresh them. Ctrl-C ends the demo.
`, s.site, username, password, s.issuer, s.app, d.tokenLifetime)
	<-ctx.Done()
	return nil
}

// startLimit bounds the time until the site answers.
const startLimit = time.Minute

// awaitSite sends requests to the site's session endpoint until it answers.
func awaitSite(ctx context.Context, s addresses) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		err := requestSession(ctx, s)
		if err == nil {
			return nil
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the site: %w", err)
		}
	}
}

// requestSession succeeds once the site's session endpoint answers 200.
func requestSession(ctx context.Context, s addresses) error {
	// The URL has the site's IP address, since localhost could resolve to another one.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.listen+"/oauth2/session", nil)
	if err != nil {
		return err
	}
	req.Host = strings.TrimPrefix(s.site, "http://")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("got status %s, want 200", resp.Status)
	}
	return nil
}
