package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// useIdle is an idle_timeout that passes several times during a test.
const useIdle = 4 * time.Second

// TestLongRequestsOutliveTheIdleTime: a slow answer and an upload take several times the idle_timeout. The session lasts on,
// and with it a WebSocket and an event stream.
func TestLongRequestsOutliveTheIdleTime(t *testing.T) {
	t.Parallel()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	_, s := startFake(t, site+"/oauth2/callback")
	caddyserver.Start(t, protected(site, s, "idle_timeout "+useIdle.String(), app))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := login(t, s, site+"/")
	cookie := cookieOf(t, c, site)
	opened := openStreamsAt(ctx, t, hostOf(site), site, cookie)
	began := time.Now()
	slow := make(chan fetchResult, 1)
	go func() {
		resp, err := c.Fetch(ctx, http.MethodGet, fmt.Sprintf("%s/u/slow?d=%v", site, 3*useIdle), "")
		slow <- fetchResult{resp, err}
	}()
	status, err := upload(ctx, site, cookie, 3*useIdle)
	if err != nil || status != http.StatusOK {
		t.Errorf("upload: got status %d and error %v after %v, want 200", status, err, time.Since(began))
	}
	if got := <-slow; got.err != nil || got.resp.Status != http.StatusOK {
		t.Errorf("slow answer: got %v and error %v after %v, want 200", got.resp, got.err, time.Since(began))
	}
	opened.wantOpen(t, "after three idle times")
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusOK {
		t.Errorf("got %v after the long requests, want the app's answer", resp)
	}
	if err := app.WaitStreams(ctx, 0); err != nil {
		t.Fatalf("without a request: %v", err)
	}
}

// upload sends a body that takes the given time.
func upload(ctx context.Context, site, cookie string, length time.Duration) (status int, err error) {
	body, source := io.Pipe()
	go func() {
		for began := time.Now(); time.Since(began) < length; time.Sleep(length / 100) {
			if _, err := source.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
		source.Close()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.Replace(site, "localhost", "127.0.0.1", 1)+"/upload", body)
	if err != nil {
		return 0, err
	}
	req.Host = hostOf(site)
	req.Header = http.Header{"Cookie": {cookie}, "Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestIgnoredPollsAreNoUse: a page that polls becomes idle all the same, and its event stream ends.
func TestIgnoredPollsAreNoUse(t *testing.T) {
	t.Parallel()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	_, s := startFake(t, site+"/oauth2/callback")
	options := fmt.Sprintf("idle_timeout %v\nidle_ignore /poll*\nidle_ignore @status", useIdle)
	directives := "@status {\nmethod GET\npath /status\n}\n" + protect(s, options) + "reverse_proxy " + app.Addr()
	caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, directives)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := login(t, s, site+"/")
	openEvents(ctx, t, hostOf(site), site, cookieOf(t, c, site))
	var last time.Time
	for range 4 { // these requests are use
		time.Sleep(useIdle / 2)
		last = time.Now()
		if resp := fetch(t, c, site+"/page"); resp.Status != http.StatusOK {
			t.Fatalf("got %v, want the app's answer", resp)
		}
	}
	polls := 0
	eventually(t, "end of the session that is polled", func() bool {
		path := []string{"/poll?n=1", "/status"}[polls%2]
		resp := fetch(t, c, site+path)
		if resp.Status == http.StatusOK && bearer(resp) != "" {
			polls++
		}
		return resp.Status == http.StatusUnauthorized
	})
	if unused := time.Since(last); unused < useIdle || polls < 2 {
		t.Errorf("the session ended %v after its last use and after %d polls, want %v and some polls", unused, polls, useIdle)
	}
	if err := app.WaitStreams(ctx, 0); err != nil {
		t.Fatal(err)
	}
}

// TestStreamsCloseWithTheirToken: with stream_token_expiry close, a WebSocket and an event stream end when their token
// expires, and new ones bring a fresh token. The session goes on.
func TestStreamsCloseWithTheirToken(t *testing.T) {
	t.Parallel()
	site, app := newSite(t), echo.Start(t, echo.Options{})
	as, s := startFake(t, site+"/oauth2/callback")
	setAccessTokenLifetime(as, heldLife)
	caddyserver.Start(t, protected(site, s, "stream_token_expiry close", app))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := login(t, s, site+"/")
	tokens := map[string]bool{}
	for range 2 {
		app.Reset()
		opened := openStreamsAt(ctx, t, hostOf(site), site, cookieOf(t, c, site))
		if err := app.WaitStreams(ctx, 2); err != nil {
			t.Fatal(err)
		}
		for _, r := range app.Requests() {
			tokens[r.Bearer()] = true
		}
		began := time.Now()
		if err := app.WaitStreams(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if lived := time.Since(began); lived > heldLife+patience/4 {
			t.Errorf("the streams lived for %v, want %v at most", lived, heldLife)
		}
		opened.awaitClosed(t)
	}
	if len(tokens) < 2 {
		t.Errorf("got %d tokens, want a fresh one for the second streams", len(tokens))
	}
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusOK {
		t.Errorf("got %v after the streams, want the app's answer", resp)
	}
}
