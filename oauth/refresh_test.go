package oauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

// TestRefreshIsConfirmedBeforeTokenIsSent: confirm runs after connecting and before
// the first byte of the token, and its error prevents the sending.
func TestRefreshIsConfirmedBeforeTokenIsSent(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			s := newServer(t, "")
			hs, roots := httptest.NewServer(s), (*x509.CertPool)(nil)
			if protocol == "HTTP/2.0" {
				hs.Close()
				hs, roots = startTLS(t, s)
			}
			t.Cleanup(hs.Close)
			*s = *newServer(t, hs.URL)
			var sent atomic.Int32
			s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
				if r.ParseForm() == nil && r.PostForm.Get("refresh_token") != "" {
					sent.Add(1)
				}
				if r.Proto != protocol {
					t.Errorf("got protocol %s, want %s", r.Proto, protocol)
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(goodTokens))
			})
			c := s.client(func(c *Config) { c.RootCAs = roots })
			refused := errors.New("the lease is lost")
			_, err := c.Refresh(testContext(t), testRefresh, func() error { return refused })
			if kindOf(err) != Unavailable || sent.Load() != 0 {
				t.Errorf("got error %v, %d tokens sent; want %v and none", err, sent.Load(), Unavailable)
			}
			checkNoSecret(t, err)
			calls := 0
			_, err = c.Refresh(testContext(t), testRefresh, func() error {
				calls++
				if sent.Load() != 0 {
					t.Error("the token was sent before the confirmation")
				}
				return nil
			})
			if err != nil || calls != 1 || sent.Load() != 1 {
				t.Errorf("got error %v, %d confirmations, %d tokens sent; want 1 of each", err, calls, sent.Load())
			}
		})
	}
}

// TestNoConfirmationWithoutConnection: if the server cannot be reached, confirm is not
// called.
func TestNoConfirmationWithoutConnection(t *testing.T) {
	c := plainClient(t, fmt.Sprintf("http://127.0.0.1:%d", loopback.FreePort(t)))
	_, err := c.Refresh(testContext(t), testRefresh, func() error {
		t.Error("confirm was called without a connection")
		return nil
	})
	if kindOf(err) != Unavailable {
		t.Errorf("got error %v, want %v", err, Unavailable)
	}
}

// TestRefreshResponseTimeoutCountsFromSending: the time for connecting and confirming
// does not shorten the time for the response.
func TestRefreshResponseTimeoutCountsFromSending(t *testing.T) {
	for _, tc := range []struct {
		name                string
		confirming, working time.Duration
		want                Kind
	}{
		{"12 s", 0, 12 * time.Second, 0},
		{"just in time", 0, 59 * time.Second, 0},
		{"after a slow confirmation", 9 * time.Second, 59 * time.Second, 0},
		{"confirmed too late", 11 * time.Second, 0, Unavailable},
		{"never", 0, time.Hour, TimedOut},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := newSynctestServer(t)
				if _, err := c.AuthorizationURL(t.Context(), goodRequest()); err != nil {
					t.Fatal(err)
				}
				s.handle("/token", func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(tc.working):
						_, _ = w.Write([]byte(goodTokens))
					case <-r.Context().Done():
					}
				})
				defer time.Sleep(time.Minute) // until a late confirmation has returned
				start := time.Now()
				tokens, err := c.Refresh(t.Context(), testRefresh, func() error {
					time.Sleep(tc.confirming)
					return nil
				})
				switch {
				case tc.want == 0 && err != nil:
					t.Errorf("after %v: got error %v", time.Since(start), err)
				case tc.want == 0 && !tokens.Sent.Equal(start.Add(tc.confirming)):
					t.Errorf("got Sent after %v, want %v", tokens.Sent.Sub(start), tc.confirming)
				case tc.want != 0 && kindOf(err) != tc.want:
					t.Errorf("got error %v, want %v", err, tc.want)
				}
			})
		})
	}
}

// TestContextEndIsTimedOut: a context that ends during the wait for the response is
// not a broken connection.
func TestContextEndIsTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.handle("/token", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.Refresh(ctx, testRefresh, nil)
		if kindOf(err) != TimedOut || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("got error %v, want %v with the deadline", err, TimedOut)
		}
	})
}
