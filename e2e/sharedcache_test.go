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

// TestSharedCacheInFront puts a shared cache (RFC 9111) between browsers and Caddy. The app sends no Cache-Control, like most
// apps, or the Cache-Control of an app that relies on the Authorization header of requests.
func TestSharedCacheInFront(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cacheControl string // of the app
		options      string
		shared       bool // the cache answers other users with alice's page
	}{
		"no Cache-Control":                      {"", "", false},
		"max-age":                               {"max-age=3600", "", false},
		"must-revalidate":                       {"max-age=3600, must-revalidate", "", false},
		"public":                                {"public, max-age=3600", "", true},
		"s-maxage":                              {"s-maxage=3600", "", true},
		"no Cache-Control, with another header": {"", "header X-Token {token}", false},
		"no Cache-Control, with optional":       {"", "optional", false},
		"max-age, with optional":                {"max-age=3600", "optional", false},
		"no Cache-Control, with retry_unauthorized": {"", "retry_unauthorized", false},
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
			anonymousClient := client.New("", "")
			anonymous := fetch(t, anonymousClient, origin+"/page") // the cache may store it, but must not send it to alice
			alice := client.New("", "")
			if _, err := alice.Login(t.Context(), origin+"/oauth2/login"); err != nil {
				t.Fatal(err)
			}
			page := fetch(t, alice, origin+"/page")
			if string(page.Body) == string(anonymous.Body) {
				t.Errorf("alice got the anonymous page %v, want her own", page)
			}
			again := fetch(t, anonymousClient, origin+"/page")
			if got := string(again.Body) == string(page.Body); got != tc.shared {
				t.Errorf("an anonymous request got alice's page: %t, want %t; cached URLs %q", got, tc.shared, cache.keys())
			}
		})
	}
}

// A sharedCache stores all answers that RFC 9111 allows it to store, also without explicit freshness. They do not expire.
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

// RoundTrip answers from the cache if it has a matching answer.
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

// mayStore reports whether a shared cache may store the answer (RFC 9111, sections 3 and 3.5).
func mayStore(r *http.Request, resp *http.Response) bool {
	control := strings.Join(resp.Header.Values("Cache-Control"), ",")
	has := func(directive string) bool { return strings.Contains(control, directive) }
	if resp.StatusCode != http.StatusOK || has("no-store") || has("private") {
		return false
	}
	return r.Header.Get("Authorization") == "" || has("public") || has("s-maxage") || has("must-revalidate")
}

// fits reports whether the header fields in Vary match the request (RFC 9111, section 4.1).
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
