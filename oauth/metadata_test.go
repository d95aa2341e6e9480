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

func TestMetadataURLs(t *testing.T) {
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

// TestIssuerMismatch: nothing of a document of another issuer is used, and the
// error tells what to do.
func TestIssuerMismatch(t *testing.T) {
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
			_, err := c.AuthorizationURL(within(t), goodRequest())
			if !errors.Is(err, ErrMetadataUnavailable) {
				t.Fatalf("got %v", err)
			}
			for _, want := range []string{s.issuer, "option issuer", "discovery_url"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %s: %v", want, err)
				}
			}
			if _, err := c.Refresh(within(t), testRefresh, nil); kindOf(err) != Unavailable || !errors.Is(err, ErrMetadataUnavailable) {
				t.Errorf("refresh: got %v", err)
			}
		})
	}
}

func TestDiscoveryElsewhere(t *testing.T) {
	outside := "https://idp.test/realm" // what the browser and the tokens know
	s := startServer(t)
	s.metadata["issuer"] = outside
	s.handle("/inside/doc", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.metadata) })
	c := s.client(func(c *Config) { c.Issuer, c.DiscoveryURL = outside, s.issuer+"/inside/doc" })
	u, err := c.AuthorizationURL(within(t), goodRequest())
	if err != nil || !strings.HasPrefix(u, s.issuer+"/authorize?") {
		t.Fatalf("got %q, %v", u, err)
	}
	token := s.idToken("iss", outside)
	if _, err := c.VerifyIDToken(within(t), token, IDTokenExpectation{Nonce: testNonce}); err != nil {
		t.Error(err)
	}
}

// TestOAuthMetadata: RFC 8414's place is asked when OpenID's has no metadata,
// and only then.
func TestOAuthMetadata(t *testing.T) {
	const second = "/.well-known/oauth-authorization-server"
	for name, tc := range map[string]struct {
		status int
		body   string
		asked  bool
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
			s.answer(wellKnown, tc.status, tc.body)
			s.handle(second, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.metadata) })
			_, err := s.client().AuthorizationURL(within(t), goodRequest())
			if asked := s.count(second) == 1; asked != tc.asked || asked != (err == nil) {
				t.Errorf("asked %v, error %v", asked, err)
			}
		})
	}
}

// TestMetadataLeadsNotHere: a server elsewhere cannot send us to what listens on
// this machine; one that is here itself can.
func TestMetadataLeadsNotHere(t *testing.T) {
	body := []byte(`{"issuer":"https://idp.test","token_endpoint":"http://127.0.0.1:2019/stop","jwks_uri":"HTTP://localhost/k"}`)
	m, err := parseMetadata(body, "https://idp.test", "https://idp.test/.well-known/openid-configuration")
	if err != nil || len(m.endpoints) != 0 || m.refused["token_endpoint"] == nil || m.refused["jwks_uri"] == nil {
		t.Errorf("from elsewhere: %+v, %v", m, err)
	}
	m, err = parseMetadata(body, "https://idp.test", "http://127.0.0.1:8080/metadata")
	if err != nil || len(m.endpoints) != 2 {
		t.Errorf("from here: %+v, %v", m, err)
	}
}

func TestEndpointsInMetadata(t *testing.T) {
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
			_, err := c.Refresh(within(t), testRefresh, nil)
			if kindOf(err) != Misconfigured || !strings.Contains(err.Error(), "token_endpoint in the server's metadata") {
				t.Errorf("got %v", err)
			}
			noCanary(t, err)
			if _, err := c.AuthorizationURL(within(t), goodRequest()); err != nil {
				t.Errorf("the other endpoints suffer: %v", err)
			}
			s.answer("/token2", 200, goodTokens)
			over := s.client(func(c *Config) { c.Endpoints.Token = s.issuer + "/token2" })
			if _, err := over.Refresh(within(t), testRefresh, nil); err != nil {
				t.Errorf("overridden: %v", err)
			}
		})
	}
	for _, missing := range []any{nil, 7, ""} {
		s := startServer(t)
		s.metadata = edit(s.metadata, "token_endpoint", missing)
		_, err := s.client().Refresh(within(t), testRefresh, nil)
		if kindOf(err) != Misconfigured || !errors.Is(err, ErrNoEndpoint) || !strings.Contains(err.Error(), "token_endpoint") {
			t.Errorf("%v: got %v", missing, err)
		}
	}
}

// TestNoDiscoveryWhenNotNeeded: a configuration that names all endpoints never
// asks for metadata, not even if the server has some.
func TestNoDiscoveryWhenNotNeeded(t *testing.T) {
	s := startServer(t)
	s.answer("/token", 200, goodTokens)
	c := s.client(func(c *Config) {
		c.Endpoints = Endpoints{Authorization: s.issuer + "/authorize", Token: s.issuer + "/token", JWKS: s.issuer + "/jwks"}
	})
	if _, err := c.AuthorizationURL(within(t), goodRequest()); err != nil {
		t.Error(err)
	}
	if err := c.CheckIssuer(within(t), nil); err != nil {
		t.Error(err)
	}
	if _, err := c.RedeemCode(within(t), testCode, testVerifier, testRedirect); err != nil {
		t.Error(err)
	}
	if _, err := c.VerifyIDToken(within(t), s.idToken(), IDTokenExpectation{Nonce: testNonce}); err != nil {
		t.Error(err)
	}
	if u, err := c.EndSessionURL(within(t), "", "", ""); u != "" || err != nil {
		t.Errorf("got %q, %v", u, err)
	}
	if err := c.Revoke(within(t), testRefresh, ""); !errors.Is(err, ErrNoEndpoint) {
		t.Error(err)
	}
	if n := s.count(wellKnown); n != 0 {
		t.Errorf("metadata was fetched %d times", n)
	}
}

// TestDiscoveryForOneEndpoint: one endpoint that is not configured is enough
// to ask for metadata.
func TestDiscoveryForOneEndpoint(t *testing.T) {
	s := startServer(t)
	for name, e := range map[string]Endpoints{
		"authorization": {Token: s.issuer + "/token", JWKS: s.issuer + "/jwks"},
		"token":         {Authorization: s.issuer + "/authorize", JWKS: s.issuer + "/jwks"},
		"keys":          {Authorization: s.issuer + "/authorize", Token: s.issuer + "/token"},
	} {
		c := s.client(func(c *Config) { c.Endpoints = e })
		s.answer("/token", 200, goodTokens)
		_, authorizeErr := c.AuthorizationURL(within(t), goodRequest())
		_, refreshErr := c.Refresh(within(t), testRefresh, nil)
		if err := errors.Join(authorizeErr, refreshErr, verify(t, s, c, keyA(), "a")); err != nil {
			t.Errorf("%s from the metadata: %v", name, err)
		}
	}
}

// TestMetadataComesBack: failures are retried, with pauses that grow to 30
// seconds and not beyond.
func TestMetadataComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		var fetched []time.Duration
		start := time.Now()
		s.handle(wellKnown, func(w http.ResponseWriter, _ *http.Request) {
			fetched = append(fetched, time.Since(start).Round(time.Second))
			w.WriteHeader(503)
		})
		ask := func() error { _, err := c.AuthorizationURL(t.Context(), goodRequest()); return err }
		for time.Since(start) < 2*time.Minute {
			if err := ask(); !errors.Is(err, ErrMetadataUnavailable) {
				t.Fatalf("got %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		var want []time.Duration
		for _, s := range []int{0, 1, 3, 7, 15, 31, 61, 91} {
			want = append(want, time.Duration(s)*time.Second)
		}
		if !slices.Equal(fetched[:len(want)], want) {
			t.Errorf("fetched at %v, want %v", fetched, want)
		}
		s.handle(wellKnown, nil)
		time.Sleep(30 * time.Second)
		if err := ask(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

// TestMetadataIsKept: a good copy serves during outages and while it is
// renewed, about hourly.
func TestMetadataIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
		ask := func() {
			t.Helper()
			if _, err := c.AuthorizationURL(t.Context(), goodRequest()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		expect := func(n int) {
			t.Helper()
			if got := s.count(wellKnown); got != n {
				t.Fatalf("fetched %d times, want %d", got, n)
			}
		}
		ask()
		time.Sleep(59 * time.Minute)
		ask()
		expect(1)
		time.Sleep(time.Minute)
		ask() // stale: served, and renewed behind
		ask()
		expect(2)
		s.answer(wellKnown, 200, `{"issuer":"https://evil.test"}`)
		time.Sleep(24 * time.Hour)
		for range 10 {
			ask()
		}
		expect(3)
		time.Sleep(time.Second)
		ask()
		expect(4)
	})
}

func TestFreshFor(t *testing.T) {
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

// TestOneFetchForAll: callers share a fetch, and one who gives up neither
// waits nor takes the fetch from the others.
func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := bubbleServer(t)
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
				t.Errorf("the caller that gave up got %v after %v", err, time.Since(start))
			}
		})
		synctest.Wait() // its fetch is under way
		for range 50 {
			wg.Go(func() {
				if _, err := c.AuthorizationURL(t.Context(), goodRequest()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := s.count(wellKnown); n != 1 {
			t.Errorf("fetched %d times", n)
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
			if !printable(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("bad error %q", err)
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
