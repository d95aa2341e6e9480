package oauth

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hangingTransport never responds to requests of the given paths, and counts them
// while they run.
type hangingTransport struct {
	inProcess
	paths   string
	running atomic.Int64
}

func (s *hangingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(s.paths, r.URL.Path) {
		return s.inProcess.RoundTrip(r)
	}
	s.running.Add(1)
	defer s.running.Add(-1)
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestConcurrentCallsOfOneKindAreBounded: if the server hangs, further calls of the same
// kind fail with ErrBusy, and calls of other kinds do not wait.
func TestConcurrentCallsOfOneKindAreBounded(t *testing.T) {
	calls := map[string]func(*Client) error{
		"/token": func(c *Client) error {
			_, err := c.RedeemCode(context.Background(), testCode, testVerifier, testRedirect)
			return err
		},
		"/revoke": func(c *Client) error { return c.Revoke(context.Background(), testRefresh, "") },
		"/par": func(c *Client) error {
			_, err := c.AuthorizationURL(context.Background(), AuthorizationRequest{
				RedirectURI: testRedirect, State: "s", Nonce: "n", Verifier: testVerifier,
			})
			return err
		},
		"/userinfo": func(c *Client) error {
			_, err := c.UserInfo(context.Background(), "a", "")
			return err
		},
	}
	for path, call := range calls {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := newSynctestServer(t, func(c *Config) {
					c.Endpoints = Endpoints{
						Authorization: "https://idp.test/authorize", Token: "https://idp.test/token", Revocation: "https://idp.test/revoke",
						UserInfo: "https://idp.test/userinfo", PushedAuthorizationRequest: "https://idp.test/par",
					}
				})
				hanging := &hangingTransport{inProcess: inProcess{s}, paths: path}
				c.http.Transport = hanging
				start := time.Now()
				var busy, unanswered atomic.Int64
				var all sync.WaitGroup
				for range 100 {
					all.Go(func() {
						switch err := call(c); {
						case errors.Is(err, ErrBusy) && kindOf(err) == Unavailable && time.Since(start) == maxSlotWait:
							busy.Add(1)
						case err != nil && time.Since(start) == defaultTimeout:
							unanswered.Add(1)
						default:
							t.Errorf("after %v: got error %v", time.Since(start), err)
						}
					})
				}
				synctest.Wait()
				if n := hanging.running.Load(); n != maxConcurrentCalls {
					t.Errorf("got %d running calls, want %d", n, maxConcurrentCalls)
				}
				for other, call := range calls {
					if other != path {
						_ = call(c)
					}
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("calls of other kinds: got a wait of %v, want none", waited)
				}
				all.Wait()
				if busy.Load() != 100-maxConcurrentCalls || unanswered.Load() != maxConcurrentCalls {
					t.Errorf("got %d busy, %d unanswered; want %d, %d", busy.Load(), unanswered.Load(), 100-maxConcurrentCalls, maxConcurrentCalls)
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if _, err := c.codeSlots.acquire(ctx, tokenEndpoint); err != nil && kindOf(err) != Unavailable {
					t.Errorf("canceled call: got error %v, want %v", err, Unavailable)
				}
			})
		})
	}
}

// TestHangingClaimSourcesDelayNoUserInfo: sources are read for the login, and must not make
// another login fail.
func TestHangingClaimSourcesDelayNoUserInfo(t *testing.T) {
	for name, endpoint := range map[string]string{"at the server": "https://idp.test/claims", "elsewhere": "https://claims.test/claims"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, c := newSynctestServer(t)
				s.respond("/userinfo", 200, `{"sub":"alice"}`)
				hanging := &hangingTransport{inProcess: inProcess{s}, paths: "/claims"}
				c.http.Transport, c.publicHTTP.Transport = hanging, hanging
				sources, names := map[string]any{}, []string{}
				for _, id := range []string{"a", "b", "c", "d", "e"} {
					sources[id] = map[string]any{"endpoint": endpoint, "access_token": sourceToken}
					names = append(names, "claim_"+id, id)
				}
				start := time.Now()
				var logins sync.WaitGroup
				for range 20 {
					logins.Go(func() {
						if _, missing := c.SourcedClaims(context.Background(), withSources(sources, names...)); len(missing) != len(sources) {
							t.Errorf("got %d missing claims, want %d", len(missing), len(sources))
						}
					})
				}
				synctest.Wait()
				if n := hanging.running.Load(); n > maxConcurrentCalls {
					t.Errorf("got %d requests of sources at a time, want at most %d", n, maxConcurrentCalls)
				}
				_, err := c.UserInfo(context.Background(), testAccess, "alice")
				if waited := time.Since(start); err != nil || waited != 0 {
					t.Errorf("UserInfo: got error %v after %v, want the claims at once", err, waited)
				}
				logins.Wait()
				if waited := time.Since(start); waited != claimSourcesTimeout {
					t.Errorf("got a wait of %v for the sources, want %v", waited, claimSourcesTimeout)
				}
			})
		})
	}
}

// TestHangingRefreshesLeaveConnections: the number of connections is limited, and
// refreshes that hang do not delay other calls.
func TestHangingRefreshesLeaveConnections(t *testing.T) {
	const refreshes = maxRefreshConns + 100
	var open, most atomic.Int64
	arrived, goOn := make(chan struct{}, refreshes), make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("grant_type") == "refresh_token" {
			arrived <- struct{}{}
			<-goOn
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"a","token_type":"Bearer"}`)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			most.Store(max(most.Load(), open.Add(1)))
		case http.StateClosed:
			open.Add(-1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c, err := New(Config{
		ClientID: "app", Timeout: time.Minute,
		Endpoints: Endpoints{Authorization: server.URL + "/authorize", Token: server.URL + "/token", Revocation: server.URL + "/revoke"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	var all sync.WaitGroup
	for range refreshes {
		all.Go(func() {
			if _, err := c.Refresh(t.Context(), testRefresh, nil); err != nil {
				t.Error(err)
			}
		})
	}
	for range maxRefreshConns {
		<-arrived
	}
	if _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); err != nil {
		t.Errorf("redeeming a code: got error %v", err)
	}
	if err := c.Revoke(testContext(t), testRefresh, ""); err != nil {
		t.Errorf("revoking: got error %v", err)
	}
	// Afterwards the server may count connections that the client has closed.
	if n := most.Load(); n > maxRefreshConns+2 {
		t.Errorf("got %d open connections, want at most %d", n, maxRefreshConns+2)
	}
	close(goOn)
	all.Wait()
}

// TestErrorHoldsGrantedTokens: if the response to a code is unusable, the error holds its
// readable tokens.
func TestErrorHoldsGrantedTokens(t *testing.T) {
	for body, want := range map[string]string{
		`{"access_token":"AT","refresh_token":"RT"}`:                    "RT AT", // no ID token
		`{"refresh_token":"RT","id_token":"x"}`:                         "RT ",
		`{"access_token":"AT","token_type":"mac","refresh_token":"RT"}`: "RT ",
		`{"error":"invalid_grant"}`:                                     "",
		`{"access_token":"A T"}`:                                        "",
		`<p>Hello`:                                                      "",
	} {
		s := startServer(t)
		s.respond("/token", 200, body)
		_, err := s.client().RedeemCode(testContext(t), testCode, testVerifier, testRedirect)
		e, ok := errors.AsType[*TokenError](err)
		if !ok {
			t.Errorf("%s: got error %v, want a *TokenError", body, err)
			continue
		}
		got := ""
		if e.Granted != nil {
			got = e.Granted.RefreshToken + " " + e.Granted.AccessToken
		}
		if got != want || strings.Contains(err.Error(), "RT") {
			t.Errorf("%s: got %q with %v, want %q", body, got, err, want)
		}
	}
}
