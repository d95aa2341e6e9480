package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

const goodTokens = `{"access_token":"` + testAccess + `","token_type":"Bearer","expires_in":600,"id_token":"x.y.z"}`

func TestClientAuthenticationMethodIsChosen(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(testClient)+":"+url.QueryEscape(testSecret)))
	tests := []struct {
		name       string
		change     func(*Config)
		listed     any // token_endpoint_auth_methods_supported
		basic      string
		id, secret string // in the form
		fails      string
	}{
		{"not listed", func(*Config) {}, nil, basic, "", "", ""},
		{"null", func(*Config) {}, "odd", basic, "", "", ""},
		{"both listed", func(*Config) {}, []string{"client_secret_post", "client_secret_basic"}, basic, "", "", ""},
		{"post listed", func(*Config) {}, []string{"private_key_jwt", "client_secret_post"}, "", testClient, testSecret, ""},
		{"neither listed", func(*Config) {}, []string{"none"}, "", "", "", "token_endpoint_auth_method"},
		{"basic configured", func(c *Config) { c.AuthMethod = "client_secret_basic" }, []string{"client_secret_post"}, basic, "", "", ""},
		{"post configured", func(c *Config) { c.AuthMethod = "client_secret_post" }, nil, "", testClient, testSecret, ""},
		{"public", func(c *Config) { c.ClientSecret = nil }, []string{"client_secret_basic"}, "", testClient, "", ""},
		{"empty secret", func(c *Config) { c.ClientSecret = func() (string, error) { return "", nil } }, nil, "", "", "", "client_secret is empty"},
		{"no secret file", func(c *Config) { c.ClientSecret = func() (string, error) { return "", errors.New("gone") } }, nil, "", "", "", "reading client_secret: gone"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := startServer(t)
			s.metadata["token_endpoint_auth_methods_supported"] = tc.listed
			s.respond("/token", 200, goodTokens)
			s.respond("/revoke", 200, "")
			c := s.client(tc.change)
			calls := map[string]func() error{
				"code":    func() error { _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); return err },
				"refresh": func() error { _, err := c.Refresh(testContext(t), testRefresh, nil); return err },
				"revoke":  func() error { return c.Revoke(testContext(t), testRefresh, "refresh_token") },
			}
			for name, call := range calls {
				err := call()
				if tc.fails != "" {
					e, ok := errors.AsType[*TokenError](err)
					if !ok || e.Kind != Misconfigured || !strings.Contains(err.Error(), tc.fails) {
						t.Errorf("%s: got error %v, want %v with %q", name, err, Misconfigured, tc.fails)
					}
					if s.count("/token")+s.count("/revoke") != 0 {
						t.Errorf("%s: the client sent a request", name)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: got error %v", name, err)
					continue
				}
				form, header := s.lastPost()
				if got := header.Get("Authorization"); got != tc.basic {
					t.Errorf("%s: got Authorization %q, want %q", name, got, tc.basic)
				}
				if form.Get("client_id") != tc.id || form.Get("client_secret") != tc.secret {
					t.Errorf("%s: got form %v, want client_id %q and client_secret %q", name, form, tc.id, tc.secret)
				}
			}
		})
	}
}

func TestTokenRequestParameters(t *testing.T) {
	s := startServer(t)
	s.respond("/token", 200, goodTokens)
	s.respond("/revoke", 200, "")
	c := s.client(func(c *Config) {
		c.Resources = []string{"https://a.test", "urn:b"}
		c.TokenParams = []Param{{"audience", "x"}}
		c.RefreshParams = []Param{{"scope", "FullAccess"}, {"scope", "two"}}
	})
	for _, tc := range []struct {
		name string
		call func() error
		want url.Values
	}{
		{
			"code",
			func() error { _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); return err },
			url.Values{
				"grant_type": {"authorization_code"}, "code": {testCode}, "code_verifier": {testVerifier},
				"redirect_uri": {testRedirect}, "resource": {"https://a.test", "urn:b"}, "audience": {"x"},
			},
		},
		{
			"refresh", func() error { _, err := c.Refresh(testContext(t), "with space &+=", nil); return err },
			url.Values{
				"grant_type": {"refresh_token"}, "refresh_token": {"with space &+="},
				"resource": {"https://a.test", "urn:b"}, "scope": {"FullAccess", "two"},
			},
		},
		{
			"revoke", func() error { return c.Revoke(testContext(t), testRefresh, "refresh_token") },
			url.Values{"token": {testRefresh}, "token_type_hint": {"refresh_token"}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.call(); err != nil {
				t.Fatal(err)
			}
			form, header := s.lastPost()
			if diff := cmp.Diff(tc.want, form); diff != "" {
				t.Error(diff)
			}
			if got := header.Get("Accept"); got != "application/json" {
				t.Errorf("got Accept %q, want application/json", got)
			}
		})
	}
}

func TestSecretIsReadForEachRequest(t *testing.T) {
	s := startServer(t)
	s.respond("/token", 200, goodTokens)
	n := 0
	c := s.client(func(c *Config) {
		c.AuthMethod = "client_secret_post"
		c.ClientSecret = func() (string, error) { n++; return fmt.Sprint("secret-", n), nil }
	})
	for _, want := range []string{"secret-1", "secret-2"} {
		if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil {
			t.Fatal(err)
		}
		if form, _ := s.lastPost(); form.Get("client_secret") != want {
			t.Errorf("got secret %q, want %q", form.Get("client_secret"), want)
		}
	}
}

// TestRefusalsAreClassified classifies the responses of real servers.
func TestRefusalsAreClassified(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		header []string
		want   TokenError
	}{
		{"dead", 400, `{"error":"invalid_grant","error_description":"token\r\n\u00e4 is \u0000dead"}`, nil,
			TokenError{Kind: Rejected, Code: "invalid_grant", Description: "token is dead"}},
		{"dead, Auth0", 403, `{"error":"invalid_grant"}`, nil, TokenError{Kind: Rejected, Code: "invalid_grant"}},
		{"dead, mockoidc code", 401, `{"error":"invalid_grant"}`, nil, TokenError{Kind: Rejected, Code: "invalid_grant"}},
		{"dead with 200, tokens null", 200, `{"error":"invalid_grant","access_token":null,"refresh_token":""}`, nil,
			TokenError{Kind: Rejected, Code: "invalid_grant"}},
		{"dead with 200", 200, `{"error":"invalid_grant"}`, nil, TokenError{Kind: Rejected, Code: "invalid_grant"}},
		{"dead, Dex", 400, `{"error":"invalid_request"}`, nil, TokenError{Kind: Unclear, Code: "invalid_request"}},
		{"dead, mockoidc", 401, `{"error":"invalid_request"}`, nil, TokenError{Kind: Unclear, Code: "invalid_request"}},
		{"dead, Glewlwyd", 400, ``, nil, TokenError{Kind: Unclear}},
		{"dead, GitHub", 200, `{"error":"bad_refresh_token"}`, nil, TokenError{Kind: Unclear, Code: "bad_refresh_token"}},
		{"dead, UAA", 401, `{"error":"invalid_token"}`, nil, TokenError{Kind: Unclear, Code: "invalid_token"}},
		{"interaction, Entra", 400, `{"error":"interaction_required"}`, nil, TokenError{Kind: Unclear, Code: "interaction_required"}},
		{"problem without error", 400, `{"title":"no"}`, nil, TokenError{Kind: Unavailable}},
		{"error is null", 400, `{"error":null}`, nil, TokenError{Kind: Unavailable}},
		{"error is empty", 400, `{"error":""}`, nil, TokenError{Kind: Unavailable}},
		{"error of a list", 400, `[{"error":"invalid_request"}]`, nil, TokenError{Kind: Unavailable}},
		{"cut JSON", 400, `{"error":"invalid_requ`, nil, TokenError{Kind: Unavailable}},
		{"text of a gateway", 400, `no healthy upstream`, []string{"Retry-After", "3"}, TokenError{Kind: Unavailable, RetryAfter: 3 * time.Second}},
		{"blank line", 400, "\r\n", nil, TokenError{Kind: Unavailable}},
		{"gateway timeout", 504, `<html>`, []string{"Retry-After", "9"}, TokenError{Kind: TimedOut, RetryAfter: 9 * time.Second}},
		{"error is an object", 400, `{"error":{"code":"invalid_grant"}}`, nil, TokenError{Kind: Unclear}},
		{"page of a gateway", 400, "<html><title>400 Bad Request</title>", []string{"Content-Type", "text/html"}, TokenError{Kind: Unavailable}},
		{"wrong secret", 401, `{"error":"invalid_client"}`, nil, TokenError{Kind: Misconfigured, Code: "invalid_client"}},
		{"wrong secret, zitadel", 400, `{"error":"invalid_client"}`, nil, TokenError{Kind: Misconfigured, Code: "invalid_client"}},
		{"scope", 400, `{"error":"invalid_scope"}`, nil, TokenError{Kind: Misconfigured, Code: "invalid_scope"}},
		{"target", 400, `{"error":"invalid_target"}`, nil, TokenError{Kind: Misconfigured, Code: "invalid_target"}},
		{"unauthorized", 400, `{"error":"unauthorized_client"}`, nil, TokenError{Kind: Misconfigured, Code: "unauthorized_client"}},
		{"401 without words", 401, ``, nil, TokenError{Kind: Misconfigured}},
		{"404", 404, `not here`, nil, TokenError{Kind: Misconfigured}},
		{"429", 429, `{"error":"invalid_grant"}`, []string{"Retry-After", "30"},
			TokenError{Kind: Unavailable, Code: "invalid_grant", RetryAfter: 30 * time.Second}},
		{"busy with 400", 400, `{"error":"temporarily_unavailable"}`, []string{"Retry-After", "99999"},
			TokenError{Kind: Unavailable, Code: "temporarily_unavailable", RetryAfter: time.Hour}},
		{"slow down", 400, `{"error":"slow_down"}`, []string{"Retry-After", "-5"}, TokenError{Kind: Unavailable, Code: "slow_down"}},
		{"500 that says dead", 500, `{"error":"invalid_grant"}`, nil, TokenError{Kind: Unavailable, Code: "invalid_grant"}},
		{"502 page", 502, `<html>`, []string{"Retry-After", "soon"}, TokenError{Kind: Unavailable}},
		{"code of junk", 400, `{"error":"` + strings.Repeat("x", 5000) + `"}`, nil,
			TokenError{Kind: Unclear, Code: strings.Repeat("x", maxErrorText) + "..."}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := startServer(t)
			s.respond("/token", tc.status, tc.body, tc.header...)
			c := s.client()
			want := tc.want
			want.Endpoint, want.Status = "token_endpoint", tc.status
			for range 2 { // the second time on a kept-alive connection
				tokens, err := c.Refresh(testContext(t), testRefresh, nil)
				got, ok := errors.AsType[*TokenError](err)
				if !ok || tokens != nil {
					t.Fatalf("got %v, %v; want a *TokenError only", tokens, err)
				}
				if diff := cmp.Diff(want, *got); diff != "" {
					t.Error(diff)
				}
				checkNoSecret(t, err)
			}
			if n := s.count("/token"); n != 2 {
				t.Errorf("got %d requests for 2 calls, want 2", n)
			}
		})
	}
}

func TestRetryAfterMayBeDate(t *testing.T) {
	now := time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"Sun, 22 Nov 2026 05:00:45 GMT": 45 * time.Second,
		"Sun, 22 Nov 2026 04:00:00 GMT": 0,
		"Mon, 22 Nov 2027 05:00:00 GMT": time.Hour,
		"":                              0,
		"99999999999999999999":          0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

// TestRedirectsAreNotFollowed: the target of a redirect receives no code, secret or
// token.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var seen atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer target.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := startServer(t)
		s.metadata["pushed_authorization_request_endpoint"] = s.issuer + "/par"
		for _, path := range []string{"/token", "/revoke", "/userinfo", "/par"} {
			s.respond(path, status, "", "Location", target.URL)
		}
		c := s.client(func(c *Config) { c.Endpoints.PushedAuthorizationRequest = s.issuer + "/par" })
		for name, err := range everyCall(t, c) {
			if e, ok := errors.AsType[*TokenError](err); !ok || e.Kind != Malformed || e.Status != status {
				t.Errorf("%d, %s: got error %v, want %v", status, name, err, Malformed)
			}
		}
		s.respond("/.well-known/openid-configuration", status, "", "Location", target.URL)
		if _, err := s.client().AuthorizationURL(testContext(t), goodRequest()); !errors.Is(err, ErrMetadataUnavailable) {
			t.Errorf("%d, metadata: got error %v, want %v", status, err, ErrMetadataUnavailable)
		}
	}
	if seen.Load() != 0 {
		t.Errorf("target: got %d requests, want 0", seen.Load())
	}
}

func goodRequest() AuthorizationRequest {
	return AuthorizationRequest{RedirectURI: testRedirect, State: testStateValue, Nonce: testNonce, Verifier: testVerifier}
}

// everyCall makes each call that fails with a *TokenError.
func everyCall(t testing.TB, c *Client) map[string]error {
	errs := make(map[string]error)
	ctx := testContext(t)
	_, errs["code"] = c.RedeemCode(ctx, testCode, testVerifier, testRedirect)
	_, errs["refresh"] = c.Refresh(ctx, testRefresh, nil)
	_, errs["userinfo"] = c.UserInfo(ctx, testAccess, "alice")
	errs["revoke"] = c.Revoke(ctx, testRefresh, "refresh_token")
	if c.endpoints[parEndpoint] != "" {
		_, errs["par"] = c.AuthorizationURL(ctx, goodRequest())
	}
	return errs
}

// rawServer calls serve for each connection. It returns the server's address.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// readRequest reads a request to the end of its form.
func readRequest(conn net.Conn) string {
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), "refresh_token=") {
		n, err := conn.Read(buf)
		if err != nil {
			break
		}
		got.Write(buf[:n])
	}
	return got.String()
}

func plainClient(t testing.TB, tokenURL string, change ...func(*Config)) *Client {
	cfg := Config{
		ClientID: testClient, ClientSecret: secret,
		Endpoints: Endpoints{Authorization: "http://127.0.0.1:1/a", Token: tokenURL, Revocation: tokenURL},
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

func kindOf(err error) Kind {
	if e, ok := errors.AsType[*TokenError](err); ok {
		return e.Kind
	}
	return 0
}

// TestOnlyUnsentFormIsUnavailable: a connection that breaks after the sending is
// Unanswered.
func TestOnlyUnsentFormIsUnavailable(t *testing.T) {
	hangUp := func(response string) func(net.Conn) {
		return func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, response)
		}
	}
	tests := []struct {
		name   string
		scheme string
		serve  func(net.Conn)
		want   Kind
	}{
		{"EOF instead of a response", "http", hangUp(""), Unanswered},
		{"EOF in the header", "http", hangUp("HTTP/1.1 200 OK\r\nContent-"), Unanswered},
		{"EOF in the body", "http", hangUp("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"refresh_token\":"), Unanswered},
		{"no HTTP", "http", hangUp(canary + "\r\n\r\n"), Unanswered},
		{"bad length", "http", hangUp("HTTP/1.1 200 OK\r\nContent-Length: " + canary + "\r\n\r\n"), Unanswered},
		{"no TLS", "https", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		}, Unavailable},
		{"EOF in the handshake", "https", func(c net.Conn) { _, _ = c.Read(make([]byte, 100)) }, Unavailable},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var conns atomic.Int32
			addr := rawServer(t, func(c net.Conn) { conns.Add(1); tc.serve(c) })
			_, err := plainClient(t, tc.scheme+"://"+addr).Refresh(testContext(t), testRefresh, nil)
			if kindOf(err) != tc.want {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			checkNoSecret(t, err)
			if conns.Load() != 1 {
				t.Errorf("got %d connections for one call, want 1", conns.Load())
			}
		})
	}
	t.Run("no listener", func(t *testing.T) {
		address := fmt.Sprintf("http://127.0.0.1:%d", loopback.FreePort(t))
		if _, err := plainClient(t, address).Refresh(testContext(t), testRefresh, nil); kindOf(err) != Unavailable {
			t.Errorf("got error %v, want %v", err, Unavailable)
		}
	})
}

// TestGrantsNeedVerifiedTLS: the client sends a grant only over TLS 1.2 or newer, and to
// a verified certificate.
func TestGrantsNeedVerifiedTLS(t *testing.T) {
	serve := func(t *testing.T, change func(*httptest.Server)) (*httptest.Server, *x509.CertPool) {
		hs := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Proto", r.Proto)
			_, _ = io.WriteString(w, goodTokens)
		}))
		hs.Config.ErrorLog = log.New(io.Discard, "", 0)
		change(hs)
		hs.StartTLS()
		t.Cleanup(hs.Close)
		pool := x509.NewCertPool()
		pool.AddCert(hs.Certificate())
		return hs, pool
	}
	for name, tc := range map[string]struct {
		change func(*httptest.Server)
		roots  bool
		host   string
		want   string // in the error; "" = tokens
	}{
		"trusted CA":   {func(*httptest.Server) {}, true, "", ""},
		"HTTP/2":       {func(hs *httptest.Server) { hs.EnableHTTP2 = true }, true, "", ""},
		"unknown CA":   {func(*httptest.Server) {}, false, "", "certificate"},
		"another name": {func(*httptest.Server) {}, true, "localhost", "certificate"},
		"TLS 1.1": {func(hs *httptest.Server) {
			hs.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		}, true, "", "version"},
	} {
		t.Run(name, func(t *testing.T) {
			hs, pool := serve(t, tc.change)
			target := hs.URL
			if tc.host != "" {
				target = strings.Replace(target, "127.0.0.1", tc.host, 1)
			}
			c := plainClient(t, target, func(c *Config) {
				if tc.roots {
					c.RootCAs = pool
				}
			})
			tokens, err := c.Refresh(testContext(t), testRefresh, nil)
			if tc.want == "" {
				if err != nil || tokens.AccessToken != testAccess {
					t.Errorf("got %+v, %v; want tokens", tokens, err)
				}
				return
			}
			if kindOf(err) != Unavailable || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want %v with %q", err, Unavailable, tc.want)
			}
		})
	}
}

// TestTokenIsNotSentTwice: a server that drops a kept-alive connection after it has read
// a refresh receives the token once.
func TestTokenIsNotSentTwice(t *testing.T) {
	var refreshes atomic.Int32
	addr := rawServer(t, func(conn net.Conn) {
		for range 2 {
			if !strings.Contains(readRequest(conn), "refresh_token=") {
				return
			}
			if refreshes.Add(1) == 2 {
				return
			}
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(goodTokens), goodTokens)
		}
	})
	c := plainClient(t, "http://"+addr)
	if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(testContext(t), testRefresh, nil); kindOf(err) != Unanswered {
		t.Errorf("got error %v, want %v", err, Unanswered)
	}
	if n := refreshes.Load(); n != 2 {
		t.Errorf("got %d refreshes for 2 calls, want 2", n)
	}
}

// TestSlowServerTimesOut: no call takes longer than its timeout.
func TestSlowServerTimesOut(t *testing.T) {
	forever := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	t.Run("no response", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, c := newSynctestServer(t)
			if _, err := c.AuthorizationURL(t.Context(), goodRequest()); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"/token", "/userinfo", "/revoke"} {
				s.handle(path, forever)
			}
			for _, call := range []struct {
				f     func() error
				takes time.Duration
			}{
				{func() error { _, err := c.Refresh(t.Context(), testRefresh, nil); return err }, time.Minute},
				{func() error { _, err := c.RedeemCode(t.Context(), testCode, testVerifier, testRedirect); return err }, 10 * time.Second},
				{func() error { _, err := c.UserInfo(t.Context(), testAccess, ""); return err }, 10 * time.Second},
				{func() error { return c.Revoke(t.Context(), testRefresh, "") }, 10 * time.Second},
			} {
				start := time.Now()
				err := call.f()
				if took := time.Since(start); took != call.takes || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got error %v after %v, want the deadline after %v", err, took, call.takes)
				}
			}
		})
	})
	t.Run("slow metadata and keys", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, c := newSynctestServer(t, func(c *Config) { c.Timeout = 3 * time.Second })
			s.handle("/jwks", forever)
			start := time.Now()
			_, err := c.VerifyIDToken(t.Context(), s.idToken(), IDTokenExpectation{Nonce: testNonce})
			if took := time.Since(start); took != 3*time.Second || !errors.Is(err, ErrKeysUnavailable) {
				t.Errorf("keys: got error %v after %v, want %v after 3s", err, took, ErrKeysUnavailable)
			}
			s2, c2 := newSynctestServer(t, func(c *Config) { c.Timeout = 3 * time.Second })
			s2.handle("/.well-known/openid-configuration", forever)
			start = time.Now()
			_, err = c2.Refresh(t.Context(), testRefresh, nil)
			if took := time.Since(start); took != 3*time.Second || kindOf(err) != Unavailable {
				t.Errorf("metadata: got error %v after %v, want %v after 3s", err, took, Unavailable)
			}
		})
	})
	t.Run("dripping body", func(t *testing.T) {
		release := make(chan struct{})
		addr := rawServer(t, func(conn net.Conn) {
			readRequest(conn)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
			<-release
		})
		c := plainClient(t, "http://"+addr, func(c *Config) { c.RefreshResponseTimeout = 3 * time.Second })
		_, err := c.Refresh(t.Context(), testRefresh, nil)
		close(release)
		if kindOf(err) != TimedOut || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, TimedOut)
		}
	})
}

func TestLargeResponsesAreRefused(t *testing.T) {
	s := startServer(t)
	huge := `{"access_token":"` + strings.Repeat("a", maxBody) + `"}`
	for _, path := range []string{"/token", "/userinfo", "/revoke"} {
		s.respond(path, 200, huge)
	}
	for name, err := range everyCall(t, s.client()) {
		if kindOf(err) != Malformed || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("%s: got error %v, want %v", name, err, Malformed)
		}
	}
	if _, header := s.lastPost(); header.Get("Accept-Encoding") != "" {
		t.Errorf("got Accept-Encoding %q, want none", header.Get("Accept-Encoding"))
	}
}

// TestRotatedTokenSurvivesBadResponse: Refresh returns a new refresh token even if the
// rest of the response is unusable.
func TestRotatedTokenSurvivesBadResponse(t *testing.T) {
	const rotated = `"refresh_token":"` + canary + `-new"`
	for name, body := range map[string]string{
		"mac":              `{"access_token":"a","token_type":"mac",` + rotated + `}`,
		"dpop":             `{"access_token":"a","token_type":"DPoP",` + rotated + `}`,
		"bad access token": `{"access_token":"a b",` + rotated + `}`,
		"no access token":  `{` + rotated + `}`,
		"error":            `{"error":"invalid_grant",` + rotated + `}`,
		"trailing":         `{"access_token":"a",` + rotated + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.respond("/token", 200, body)
			tokens, err := s.client().Refresh(testContext(t), testRefresh, nil)
			if err == nil || kindOf(err) == 0 {
				t.Fatalf("got error %v, want a *TokenError", err)
			}
			checkNoSecret(t, err)
			if diff := cmp.Diff(&TokenResponse{RefreshToken: canary + "-new"}, tokens); diff != "" {
				t.Error(diff)
			}
			if tokens, err := s.client().RedeemCode(testContext(t), testCode, testVerifier, testRedirect); tokens != nil || err == nil {
				t.Errorf("at login: got %v, %v; want an error only", tokens, err)
			}
		})
	}
}

func TestLoginRequiresIDToken(t *testing.T) {
	s := startServer(t)
	s.respond("/token", 200, `{"access_token":"a","id_token":null}`)
	if _, err := s.client().RedeemCode(testContext(t), testCode, testVerifier, testRedirect); kindOf(err) != Malformed {
		t.Errorf("got error %v, want %v", err, Malformed)
	}
	if _, err := s.client().Refresh(testContext(t), testRefresh, nil); err != nil {
		t.Errorf("refresh: got error %v", err)
	}
	c := s.client(func(c *Config) { c.Scopes = []string{"api"} })
	if _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); err != nil {
		t.Errorf("without scope openid: got error %v", err)
	}
}

func TestRevokeReportsErrors(t *testing.T) {
	s := startServer(t)
	s.respond("/revoke", 503, "", "Retry-After", "3")
	err := s.client().Revoke(testContext(t), testRefresh, "")
	if e, ok := errors.AsType[*TokenError](err); !ok || e.Kind != Unavailable || e.RetryAfter != 3*time.Second {
		t.Errorf("got error %v, want %v with RetryAfter 3s", err, Unavailable)
	}
	delete(s.metadata, "revocation_endpoint")
	if err := s.client().Revoke(testContext(t), testRefresh, ""); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("got error %v, want %v", err, ErrNoEndpoint)
	}
}
