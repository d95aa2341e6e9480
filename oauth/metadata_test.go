package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const wellKnown = "/.well-known/openid-configuration"

func TestMetadataURLsOfIssuer(t *testing.T) {
	for _, tc := range []struct {
		issuer, discoveryURL string
		want                 []string
	}{
		{"https://idp.test", "", []string{
			"https://idp.test/.well-known/openid-configuration", "https://idp.test/.well-known/oauth-authorization-server",
		}},
		{"https://idp.test/", "", []string{
			"https://idp.test/.well-known/openid-configuration", "https://idp.test/.well-known/oauth-authorization-server",
		}},
		{"https://idp.test/realms/a%20b/", "", []string{
			"https://idp.test/realms/a%20b/.well-known/openid-configuration",
			"https://idp.test/.well-known/oauth-authorization-server/realms/a%20b",
		}},
		{"https://idp.test/x", "https://inside.test/doc/", []string{"https://inside.test/doc/"}},
		{"", "", nil},
	} {
		if diff := cmp.Diff(tc.want, metadataURLs(tc.issuer, tc.discoveryURL)); diff != "" {
			t.Errorf("%q: %s", tc.issuer, diff)
		}
	}
}

// TestMetadataOfOtherIssuerIsRefused: the client uses no part of the document, and the
// error names the options to change.
func TestMetadataOfOtherIssuerIsRefused(t *testing.T) {
	for name, change := range map[string]func(issuer string) any{
		"trailing slash": func(i string) any { return i + "/" },
		"other case":     func(i string) any { return strings.ToUpper(i) },
		"other host":     func(string) any { return "https://other.test" },
		"missing":        func(string) any { return nil },
		"number":         func(string) any { return 7 },
		"list":           func(i string) any { return []string{i} },
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.metadata = edit(s.metadata, "issuer", change(s.issuer))
			c := s.client()
			_, err := c.AuthorizationURL(testContext(t), goodRequest())
			if !errors.Is(err, ErrMetadataUnavailable) {
				t.Fatalf("got error %v, want %v", err, ErrMetadataUnavailable)
			}
			for _, want := range []string{s.issuer, "option issuer", "discovery_url"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got error %v, want one with %q", err, want)
				}
			}
			if _, err := c.Refresh(testContext(t), testRefresh, nil); kindOf(err) != Unavailable || !errors.Is(err, ErrMetadataUnavailable) {
				t.Errorf("refresh: got error %v, want %v with %v", err, Unavailable, ErrMetadataUnavailable)
			}
		})
	}
}

func TestDiscoveryURLMayDifferFromIssuer(t *testing.T) {
	outside := "https://idp.test/realm" // the issuer in the browser and in tokens
	s := startServer(t)
	s.metadata["issuer"] = outside
	s.handle("/inside/doc", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.metadata) })
	c := s.client(func(c *Config) { c.Issuer, c.DiscoveryURL = outside, s.issuer+"/inside/doc" })
	u, err := c.AuthorizationURL(testContext(t), goodRequest())
	if err != nil || !strings.HasPrefix(u, s.issuer+"/authorize?") {
		t.Fatalf("got %q, %v; want the authorization endpoint", u, err)
	}
	token := s.idToken("iss", outside)
	if _, err := c.VerifyIDToken(testContext(t), token, IDTokenExpectation{Nonce: testNonce}); err != nil {
		t.Error(err)
	}
}

// TestSecondMetadataURLIsTriedWithoutFirst: the client requests the URL of RFC 8414 only
// if that of OpenID Connect has no metadata.
func TestSecondMetadataURLIsTriedWithoutFirst(t *testing.T) {
	const second = "/.well-known/oauth-authorization-server"
	for name, tc := range map[string]struct {
		status int
		body   string
		second bool // requested
	}{
		"404":              {404, "", true},
		"403":              {403, "", true},
		"redirect":         {302, "", true},
		"page of an app":   {200, "<html>", true},
		"503":              {503, "", false},
		"429":              {429, "", false},
		"of other issuer":  {200, `{"issuer":"https://other.test"}`, false},
		"larger than 1 MB": {200, `{"x":"` + strings.Repeat("x", maxBody) + `"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.respond(wellKnown, tc.status, tc.body)
			s.handle(second, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.metadata) })
			_, err := s.client().AuthorizationURL(testContext(t), goodRequest())
			if tried := s.count(second) == 1; tried != tc.second || tried != (err == nil) {
				t.Errorf("got second URL requested: %v, error %v; want %v", tried, err, tc.second)
			}
		})
	}
}

// TestRemoteMetadataCannotNameLoopbackEndpoints: only metadata that comes from a loopback
// host may name endpoints there.
func TestRemoteMetadataCannotNameLoopbackEndpoints(t *testing.T) {
	body := []byte(`{"issuer":"https://idp.test","token_endpoint":"http://127.0.0.1:2019/stop","jwks_uri":"HTTP://localhost/k"}`)
	m, err := parseMetadata(body, "https://idp.test", "https://idp.test/.well-known/openid-configuration")
	if err != nil || len(m.endpoints) != 0 || m.invalidEndpoints["token_endpoint"] == nil || m.invalidEndpoints["jwks_uri"] == nil {
		t.Errorf("remote: got %+v, %v; want no endpoints", m, err)
	}
	m, err = parseMetadata(body, "https://idp.test", "http://127.0.0.1:8080/metadata")
	if err != nil || len(m.endpoints) != 2 {
		t.Errorf("loopback: got %+v, %v; want 2 endpoints", m, err)
	}
}

func TestInvalidEndpointInMetadataIsNotUsed(t *testing.T) {
	for name, bad := range map[string]any{
		"http":       "http://idp.test/token",
		"file":       "file:///etc/passwd",
		"link-local": "https://169.254.169.254/token",
		"user info":  "https://u:" + canary + "@idp.test/token",
		"fragment":   "https://idp.test/token#x",
		"relative":   "/token",
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.metadata["token_endpoint"] = bad
			c := s.client()
			_, err := c.Refresh(testContext(t), testRefresh, nil)
			if kindOf(err) != Misconfigured || !strings.Contains(err.Error(), "token_endpoint in the server's metadata") {
				t.Errorf("got error %v, want %v about token_endpoint", err, Misconfigured)
			}
			checkNoSecret(t, err)
			if _, err := c.AuthorizationURL(testContext(t), goodRequest()); err != nil {
				t.Errorf("another endpoint: got error %v", err)
			}
			s.respond("/token2", 200, goodTokens)
			overridden := s.client(func(c *Config) { c.Endpoints.Token = s.issuer + "/token2" })
			if _, err := overridden.Refresh(testContext(t), testRefresh, nil); err != nil {
				t.Errorf("overridden endpoint: got error %v", err)
			}
		})
	}
	for _, missing := range []any{nil, 7, ""} {
		s := startServer(t)
		s.metadata = edit(s.metadata, "token_endpoint", missing)
		_, err := s.client().Refresh(testContext(t), testRefresh, nil)
		if kindOf(err) != Misconfigured || !errors.Is(err, ErrNoEndpoint) || !strings.Contains(err.Error(), "token_endpoint") {
			t.Errorf("token_endpoint %v: got error %v, want %v", missing, err, ErrNoEndpoint)
		}
	}
}

// TestNoDiscoveryIfAllEndpointsAreConfigured: the client then never requests metadata,
// even if the server has some.
func TestNoDiscoveryIfAllEndpointsAreConfigured(t *testing.T) {
	s := startServer(t)
	s.respond("/token", 200, goodTokens)
	c := s.client(func(c *Config) {
		c.Endpoints = Endpoints{Authorization: s.issuer + "/authorize", Token: s.issuer + "/token", JWKS: s.issuer + "/jwks"}
		c.IDTokenAlgorithm = "ES256"
	})
	if _, err := c.AuthorizationURL(testContext(t), goodRequest()); err != nil {
		t.Error(err)
	}
	if err := c.CheckIssuer(testContext(t), nil); err != nil {
		t.Error(err)
	}
	if _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); err != nil {
		t.Error(err)
	}
	if _, err := c.VerifyIDToken(testContext(t), s.idToken(), IDTokenExpectation{Nonce: testNonce}); err != nil {
		t.Error(err)
	}
	if u, err := c.EndSessionURL(testContext(t), LogoutRequest{}); u != "" || err != nil {
		t.Errorf("EndSessionURL: got %q, %v; want neither", u, err)
	}
	if err := c.Revoke(testContext(t), testRefresh, ""); !errors.Is(err, ErrNoEndpoint) {
		t.Error(err)
	}
	if n := s.count(wellKnown); n != 0 {
		t.Errorf("got %d fetches of metadata, want 0", n)
	}
}

// TestDiscoveryForOneMissingEndpoint: one missing endpoint in the configuration makes
// the client fetch the metadata.
func TestDiscoveryForOneMissingEndpoint(t *testing.T) {
	s := startServer(t)
	for name, e := range map[string]Endpoints{
		"authorization": {Token: s.issuer + "/token", JWKS: s.issuer + "/jwks"},
		"token":         {Authorization: s.issuer + "/authorize", JWKS: s.issuer + "/jwks"},
		"keys":          {Authorization: s.issuer + "/authorize", Token: s.issuer + "/token"},
	} {
		c := s.client(func(c *Config) { c.Endpoints = e })
		s.respond("/token", 200, goodTokens)
		_, authorizeErr := c.AuthorizationURL(testContext(t), goodRequest())
		_, refreshErr := c.Refresh(testContext(t), testRefresh, nil)
		if err := errors.Join(authorizeErr, refreshErr, verify(t, s, c, keyA(), "a")); err != nil {
			t.Errorf("%s from the metadata: got error %v", name, err)
		}
	}
}

// TestFirstMetadataIsRetried: the pauses between the fetches grow to 30 seconds.
func TestFirstMetadataIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		var fetched []time.Duration
		start := time.Now()
		s.handle(wellKnown, func(w http.ResponseWriter, _ *http.Request) {
			fetched = append(fetched, time.Since(start).Round(time.Second))
			w.WriteHeader(503)
		})
		login := func() error { _, err := c.AuthorizationURL(t.Context(), goodRequest()); return err }
		for time.Since(start) < 2*time.Minute {
			if err := login(); !errors.Is(err, ErrMetadataUnavailable) {
				t.Fatalf("got error %v, want %v", err, ErrMetadataUnavailable)
			}
			time.Sleep(100 * time.Millisecond)
		}
		var want []time.Duration
		for _, s := range []int{0, 1, 3, 7, 15, 31, 61, 91} {
			want = append(want, time.Duration(s)*time.Second)
		}
		if !slices.Equal(fetched[:len(want)], want) {
			t.Errorf("got fetches at %v, want %v", fetched, want)
		}
		s.handle(wellKnown, nil)
		time.Sleep(30 * time.Second)
		if err := login(); err != nil {
			t.Errorf("after the outage: got error %v", err)
		}
	})
}

// TestMetadataOutlivesOutage: valid metadata remains usable during outages and renewals,
// which happen once an hour.
func TestMetadataOutlivesOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		login := func() {
			t.Helper()
			if _, err := c.AuthorizationURL(t.Context(), goodRequest()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		expect := func(n int) {
			t.Helper()
			if got := s.count(wellKnown); got != n {
				t.Fatalf("got %d fetches, want %d", got, n)
			}
		}
		login()
		time.Sleep(59 * time.Minute)
		login()
		expect(1)
		time.Sleep(time.Minute)
		login() // stale: used, and renewed in the background
		login()
		expect(2)
		s.respond(wellKnown, 200, `{"issuer":"https://evil.test"}`)
		time.Sleep(24 * time.Hour)
		for range 10 {
			login()
		}
		expect(3)
		time.Sleep(time.Second)
		login()
		expect(4)
	})
}

func TestFreshnessIsMaxAgeWithinBounds(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                        time.Hour,
		"public":                  time.Hour,
		"max-age=0":               5 * time.Minute,
		"public, Max-Age=7200":    2 * time.Hour,
		`max-age="7200"`:          2 * time.Hour,
		"max-age=99999999":        24 * time.Hour,
		"max-age=999999999999999": time.Hour,
		"max-age=-1":              time.Hour,
		"no-store, max-age=7200":  5 * time.Minute,
	} {
		if got := freshFor(http.Header{"Cache-Control": {header}}); got != want {
			t.Errorf("%q: got %v, want %v", header, got, want)
		}
	}
}

// TestCallersShareOneFetch: a caller that gives up returns at once, and does not cancel
// the fetch for the others.
func TestCallersShareOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.handle(wellKnown, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(5 * time.Second)
			writeJSON(w, s.metadata)
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			_, err := c.AuthorizationURL(ctx, goodRequest())
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrMetadataUnavailable) || time.Since(start) != time.Second {
				t.Errorf("caller that gives up: got error %v after %v, want the deadline after 1s", err, time.Since(start))
			}
		})
		synctest.Wait() // its fetch is running
		for range 50 {
			wg.Go(func() {
				if _, err := c.AuthorizationURL(t.Context(), goodRequest()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := s.count(wellKnown); n != 1 {
			t.Errorf("got %d fetches, want 1", n)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	const issuer = "https://idp.test"
	for _, seed := range []string{
		`{"issuer":"https://idp.test","token_endpoint":"https://idp.test/token","jwks_uri":"http://[::1]:1/k"}`,
		`{"issuer":"https://idp.test/"}`, `[]`, `{"issuer":"https://idp.test","token_endpoint":"http://0/","x":1e999}`,
		`{"issuer":"https://idp.test","id_token_signing_alg_values_supported":[1],"require_pushed_authorization_requests":"y"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := parseMetadata(body, issuer, issuer)
		if err != nil {
			if !isPrintable(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		members, err := parseObject(body)
		if got, _ := stringMember(members, "issuer"); err != nil || got != issuer {
			t.Errorf("accepted %q", body)
		}
		for name, u := range m.endpoints {
			if err := checkURL(u); err != nil {
				t.Error(fmt.Errorf("%s: %w", name, err))
			}
		}
	})
}
