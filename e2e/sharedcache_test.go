package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestSharedCacheInFront puts a cache between browsers and Caddy that obeys RFC 9111. The app says nothing about caching, as
// most apps do, or says what it would say behind an Authorization header.
func TestSharedCacheInFront(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cacheControl string // of the app
		options      string
		shared       bool // alice's page is everybody's
	}{
		"the app says nothing":             {"", "", false},
		"max-age alone":                    {"max-age=3600", "", false},
		"must-revalidate is no wish":       {"max-age=3600, must-revalidate", "", false},
		"public":                           {"public, max-age=3600", "", true},
		"s-maxage":                         {"s-maxage=3600", "", true},
		"nothing, with another header":     {"", "header X-Token {token}", false},
		"nothing, where it is optional":    {"", "optional", false},
		"max-age, where it is optional":    {"max-age=3600", "optional", false},
		"retry_unauthorized and no wishes": {"", "retry_unauthorized", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := newSite(t)
			origin, cache := startSharedCache(t, inner)
			_, s := startFake(t, origin+"/oauth2/callback")
			app := echo.Start(t, echo.Options{})
			directives := protect(s, "base_url "+origin+"\n"+tc.options) + "reverse_proxy " + app.Addr()
			if tc.cacheControl != "" {
				directives += " {\nheader_down Cache-Control \"" + tc.cacheControl + "\"\n}"
			}
			caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(inner, directives+"\n")})
			nobody := client.New("", "")
			anonymous := fetch(t, nobody, origin+"/page") // may be stored, and must not be alice's then
			alice := client.New("", "")
			if _, err := alice.Login(t.Context(), origin+"/oauth2/login"); err != nil {
				t.Fatal(err)
			}
			page := fetch(t, alice, origin+"/page")
			if string(page.Body) == string(anonymous.Body) {
				t.Errorf("alice gets what nobody got: %v", page)
			}
			again := fetch(t, nobody, origin+"/page")
			if got := string(again.Body) == string(page.Body); got != tc.shared {
				t.Errorf("nobody gets alice's page: %v, want %v; stored are %q", got, tc.shared, cache.keys())
			}
		})
	}
}

// A sharedCache stores answers without an end, heuristically where the app says nothing, as RFC 9111 allows it.
type sharedCache struct {
	next http.RoundTripper

	mu     sync.Mutex
	stored map[string][]storedAnswer
}

type storedAnswer struct {
	request http.Header
	status  int
	header  http.Header
	body    []byte
}

func startSharedCache(t *testing.T, behind string) (origin string, c *sharedCache) {
	t.Helper()
	target, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	c = &sharedCache{next: &http.Transport{}, stored: map[string][]storedAnswer{}}
	server := httptest.NewServer(&httputil.ReverseProxy{Transport: c, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1), c
}

// RoundTrip answers from the cache if it can.
func (c *sharedCache) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		return c.next.RoundTrip(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.stored[r.URL.String()] {
		if a.fits(r) {
			return a.response(r), nil
		}
	}
	resp, err := c.next.RoundTrip(r)
	if err != nil || !mayStore(r, resp) {
		return resp, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := storedAnswer{r.Header.Clone(), resp.StatusCode, resp.Header, body}
	c.stored[r.URL.String()] = append(c.stored[r.URL.String()], a)
	return a.response(r), nil
}

// mayStore is RFC 9111, sections 3 and 3.5.
func mayStore(r *http.Request, resp *http.Response) bool {
	control := strings.Join(resp.Header.Values("Cache-Control"), ",")
	says := func(directive string) bool { return strings.Contains(control, directive) }
	if resp.StatusCode != http.StatusOK || says("no-store") || says("private") {
		return false
	}
	return r.Header.Get("Authorization") == "" || says("public") || says("s-maxage") || says("must-revalidate")
}

// fits is RFC 9111, section 4.1.
func (a storedAnswer) fits(r *http.Request) bool {
	for _, line := range a.header.Values("Vary") {
		for field := range strings.SplitSeq(line, ",") {
			field = strings.TrimSpace(field)
			if field == "*" || strings.Join(a.request.Values(field), ",") != strings.Join(r.Header.Values(field), ",") {
				return false
			}
		}
	}
	return true
}

func (a storedAnswer) response(r *http.Request) *http.Response {
	return &http.Response{
		StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: a.header.Clone(), Request: r,
		Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)),
	}
}

func (c *sharedCache) keys() (urls []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for u := range c.stored {
		urls = append(urls, u)
	}
	return urls
}
