package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// announce is the part that tells people what to do once everything runs.
func (d demo) announce(ctx context.Context, s setting) error {
	if err := awaitSite(ctx, s); err != nil {
		return err
	}
	fmt.Fprintf(d.out, `
Open      %s
User      %s
Password  %s

The login server is %s, the app %s.
An access token lives for %v: watch it being refreshed. Ctrl-C ends the demo.
`, s.site, username, password, s.issuer, s.app, d.tokenLifetime)
	<-ctx.Done()
	return nil
}

// startLimit is how long Caddy may take until the site answers.
const startLimit = time.Minute

// awaitSite asks the session endpoint of the site until it answers.
func awaitSite(ctx context.Context, s setting) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := askSite(ctx, s)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the site: %w", err)
		}
	}
}

func askSite(ctx context.Context, s setting) error {
	// By its address: localhost could be another one here.
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
		return fmt.Errorf("the answer was %s", resp.Status)
	}
	return nil
}
