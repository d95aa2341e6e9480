package oauth

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const sourceToken = canary + "-token-of-the-source"

// withSources returns the members of an ID token that leaves claims to sources. Names are
// pairs of a claim and a source.
func withSources(sources map[string]any, names ...string) map[string]json.RawMessage {
	assigned := map[string]string{}
	for i := 0; i+1 < len(names); i += 2 {
		assigned[names[i]] = names[i+1]
	}
	data := must(json.Marshal(map[string]any{"sub": "alice", "email": "a@b", claimNames: assigned, claimSources: sources}))
	return must(parseObject(data))
}

// claimsOf signs claims with key A of a server.
func (s *server) claimsOf(change ...any) string {
	return sign(jwt.SigningMethodES256, keyA(), edit(map[string]any{"iss": s.issuer, "address": "Main St"}, change...), "kid", "a")
}

// TestAggregatedClaimsAreVerified: the keys of the issuer that the JWT names must have
// signed it. It supplies the claims that the server has assigned to it, and no others.
func TestAggregatedClaimsAreVerified(t *testing.T) {
	s, other := startServer(t), startServer(t)
	other.setKeys(publicJWK(keyB(), "b"))
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	byOther := func(change ...any) string {
		return sign(jwt.SigningMethodES256, keyB(), edit(map[string]any{"iss": other.issuer, "address": "Main St"}, change...), "kid", "b")
	}
	tests := []struct {
		name string
		raw  any
		want string // in the error; "" = accepted
	}{
		{"of the server", s.claimsOf(), ""},
		{"of another issuer", byOther(), ""},
		{"for another audience", byOther("aud", "https://op.test"), ""},
		{"about another subject there", byOther("sub", "alice-there"), ""},
		{"with times", byOther("exp", in(time.Minute), "nbf", in(-time.Minute)), ""},
		{"other key", sign(jwt.SigningMethodES256, keyA(), map[string]any{"iss": other.issuer, "address": "x"}, "kid", "b"), "signature is invalid"},
		{"unknown key", sign(jwt.SigningMethodES256, keyA(), map[string]any{"iss": other.issuer, "address": "x"}, "kid", "a"), "no key"},
		{"unsigned", forge(`{"alg":"none"}`, map[string]any{"iss": s.issuer, "address": "x"}, ""), "not allowed"},
		{"client's secret", sign(jwt.SigningMethodHS256, []byte(testSecret), map[string]any{"iss": s.issuer, "address": "x"}), "not allowed"},
		{"no iss", byOther("iss", nil), "no iss"},
		{"iss of a wrong type", byOther("iss", 7), "no iss"},
		{"issuer that is no URL", byOther("iss", "someone"), "must be"},
		{"issuer on plain http", byOther("iss", "http://idp.test"), "must be https"},
		{"issuer with a query", byOther("iss", other.issuer+"?x"), "is not an issuer"},
		{"issuer that is not there", byOther("iss", other.issuer+"/realm"), "keys are not available"},
		{"long issuer", byOther("iss", other.issuer+"/"+strings.Repeat("x", maxIssuer)), "is too long"},
		{"expired", byOther("exp", in(-time.Hour)), "expired"},
		{"not valid yet", byOther("nbf", in(time.Hour)), "valid in"},
		{"access token", sign(jwt.SigningMethodES256, keyA(), map[string]any{"iss": s.issuer, "address": "x"}, "kid", "a", "typ", "at+jwt"), "type"},
		{"encrypted", "a.b.c.d.e", "encrypted"},
		{"too large", byOther("x", strings.Repeat("x", 2*maxToken)), "larger than"},
		{"no JWT", "x", "not a signed JWT"},
		{"of a wrong type", 7, "neither a JWT nor an endpoint"},
		{"without the claim", byOther("address", nil), "does not have them"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			members := withSources(map[string]any{"src": map[string]any{"JWT": tc.raw}}, "address", "src")
			got, missing := s.client().SourcedClaims(testContext(t), members)
			if tc.want == "" {
				if len(missing) != 0 || len(got) != 1 || string(got["address"]) != `"Main St"` {
					t.Errorf("got %s and missing %v, want the address", got, missing)
				}
				return
			}
			if len(got) != 0 || len(missing) != 1 || !slices.Equal(missing[0].Names, []string{"address"}) || !strings.Contains(missing[0].Err.Error(), tc.want) {
				t.Fatalf("got %s and missing %v, want none and an error with %q", got, missing, tc.want)
			}
			checkNoSecret(t, missing[0].Err)
		})
	}
}

// TestSourceSuppliesOnlyItsClaims: a source cannot replace what the server says, nor
// describe the login.
func TestSourceSuppliesOnlyItsClaims(t *testing.T) {
	s := startServer(t)
	raw := s.claimsOf("email", "eve@b", "sub", "eve", "auth_time", 1, "session_expiry", 1, "groups", []string{"admin"}, "phone", "1", "sid", "x")
	names := []string{"address", "src", "email", "src", "sub", "src", "auth_time", "src", "session_expiry", "src", "sid", "src", "groups", "elsewhere"}
	got, missing := s.client().SourcedClaims(testContext(t), withSources(map[string]any{"src": map[string]any{"JWT": raw}}, names...))
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, []string{"address"}) {
		t.Errorf("got claims %v, want the address alone", keys)
	}
	if len(missing) != 1 || !slices.Equal(missing[0].Names, []string{"groups"}) {
		t.Errorf("got missing %v, want the groups, whose source does not exist", missing)
	}
	for name, members := range map[string]string{
		"names of a wrong type":   `{"_claim_names":["a"],"_claim_sources":{}}`,
		"sources of a wrong type": `{"_claim_names":{"a":7,"b":null},"_claim_sources":[]}`,
		"no names":                `{"_claim_sources":{"src":{"JWT":"x"}}}`,
		"none":                    `{}`,
	} {
		if got, missing := s.client().SourcedClaims(testContext(t), must(parseObject([]byte(members)))); len(got)+len(missing) != 0 {
			t.Errorf("%s: got %s and missing %v, want none", name, got, missing)
		}
	}
}

// TestDistributedClaimsAreFetched with the access token of the source, once.
func TestDistributedClaimsAreFetched(t *testing.T) {
	s, other := startServer(t), startServer(t)
	good := other.claimsOf()
	tests := []struct {
		name   string
		answer http.HandlerFunc
		token  any
		want   string // in the error; "" = accepted
		asked  int
	}{
		{"good", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, good, "\n") }, sourceToken, "", 1},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, sourceToken, "HTTP 401", 1},
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) }, sourceToken, "redirects are not followed", 1},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>"+canary) }, sourceToken, "not a signed JWT", 1},
		{"JSON", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]string{"address": "x"}) }, sourceToken, "not a signed JWT", 1},
		{"endless", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, strings.Repeat("x", maxBody+1)) }, sourceToken, "larger than", 1},
		{"broken", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, sourceToken, "no complete response", 1},
		{"slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, sourceToken, "no complete response", 1},
		{"no token", nil, nil, "the server has sent none", 0},
		{"token with a line break", nil, "a\r\nb", "not usable", 0},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			before, timeout := other.count("/claims"), 10*time.Second
			if tc.name == "slow" {
				timeout = 200 * time.Millisecond
			}
			other.handle("/claims", func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.Header.Get("Authorization") != "Bearer "+sourceToken {
					t.Errorf("got %s with Authorization %q, want the token of the source", r.Method, r.Header.Get("Authorization"))
				}
				tc.answer(w, r)
			})
			source := edit(map[string]any{"endpoint": other.issuer + "/claims", "access_token": sourceToken}, "access_token", tc.token)
			c := s.client(func(c *Config) { c.Timeout = timeout })
			got, missing := c.SourcedClaims(testContext(t), withSources(map[string]any{"src": source}, "address", "src"))
			if n := other.count("/claims") - before; n != tc.asked || other.count("/elsewhere") != 0 {
				t.Errorf("got %d requests, want %d", n, tc.asked)
			}
			if tc.want == "" {
				if len(missing) != 0 || string(got["address"]) != `"Main St"` {
					t.Errorf("got %s and missing %v, want the address", got, missing)
				}
				return
			}
			if len(got) != 0 || len(missing) != 1 || !strings.Contains(missing[0].Err.Error(), tc.want) {
				t.Fatalf("got %s and missing %v, want an error with %q", got, missing, tc.want)
			}
			checkNoSecret(t, missing[0].Err)
		})
	}
}

// TestFewClaimSourcesAreRead of the many that a server may name. One that fails does not
// affect the others.
func TestFewClaimSourcesAreRead(t *testing.T) {
	s := startServer(t)
	s.handle("/claims", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "0" {
			w.WriteHeader(500)
			return
		}
		_, _ = fmt.Fprint(w, s.claimsOf("c"+r.URL.RawQuery, r.URL.RawQuery))
	})
	sources, names := map[string]any{}, []string{}
	for i := range 9 {
		id := fmt.Sprint(i)
		sources[id] = map[string]any{"endpoint": s.issuer + "/claims?" + id, "access_token": sourceToken}
		names = append(names, "c"+id, id)
	}
	got, missing := s.client().SourcedClaims(testContext(t), withSources(sources, names...))
	if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, []string{"c1", "c2", "c3", "c4"}) || len(missing) != 5 || s.count("/claims") != maxClaimSources {
		t.Errorf("got claims %v, %d missing, %d requests; want those of four sources, 5 and %d", keys, len(missing), s.count("/claims"), maxClaimSources)
	}
}

// TestKeysOfClaimsProvidersAreKept: a second login does not fetch them again, and many
// issuers do not fill the memory.
func TestKeysOfClaimsProvidersAreKept(t *testing.T) {
	s, other := startServer(t), startServer(t)
	c := s.client()
	read := func(raw string) []MissingClaims {
		_, missing := c.SourcedClaims(testContext(t), withSources(map[string]any{"src": map[string]any{"JWT": raw}}, "address", "src"))
		return missing
	}
	for range 3 {
		if missing := read(other.claimsOf()); len(missing) != 0 {
			t.Errorf("got missing %v", missing)
		}
	}
	if n := other.count("/jwks"); n != 1 {
		t.Errorf("got %d fetches of keys, want 1", n)
	}
	for i := range 3 * maxClaimsProviders {
		read(sign(jwt.SigningMethodES256, keyB(), map[string]any{"iss": fmt.Sprint(other.issuer, "/", i), "address": "x"}))
	}
	if n := len(c.providers.known); n > maxClaimsProviders {
		t.Errorf("got %d issuers kept, want %d at most", n, maxClaimsProviders)
	}
}

// TestSourcesAreAtPublicAddresses, except those at the server's own hosts: a server must
// not direct requests to other services of the operator.
func TestSourcesAreAtPublicAddresses(t *testing.T) {
	var requests atomic.Int32
	inside := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer inside.Close()
	s := newServer(t, "https://idp.test")
	c := s.client()
	c.http.Transport = inProcess{s}
	s.handle("/claims", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, s.claimsOf()) })
	port := inside.URL[strings.LastIndex(inside.URL, ":"):]
	for endpoint, want := range map[string]string{
		"https://idp.test/claims":     "",
		"https://IDP.test:443/claims": "",
		inside.URL:                    "the address is not public",
		"https://localhost" + port:    "the address is not public",
		"https://[::1]" + port:        "the address is not public",
		"https://10.1.2.3/":           "the address is not public",
		"https://[fd00::1]/":          "the address is not public",
		"https://169.254.169.254/":    "link-local",
		"http://127.0.0.1:2019/":      "must be https",
		"http://localhost:2019/":      "must be https",
		"http://idp.test/":            "must be https",
		"file:///etc/passwd":          "must be",
		"":                            "must be",
	} {
		source := map[string]any{"endpoint": endpoint, "access_token": sourceToken}
		got, missing := c.SourcedClaims(testContext(t), withSources(map[string]any{"src": source}, "address", "src"))
		switch {
		case want == "" && string(got["address"]) != `"Main St"`:
			t.Errorf("%s: got %s and missing %v, want the address", endpoint, got, missing)
		case want != "" && (len(got) != 0 || len(missing) != 1 || !strings.Contains(missing[0].Err.Error(), want)):
			t.Errorf("%s: got %s and missing %v, want an error with %q", endpoint, got, missing, want)
		}
	}
	// The issuer of the claims is bounded in the same way.
	raw := sign(jwt.SigningMethodES256, keyB(), map[string]any{"iss": inside.URL, "address": "x"})
	if got, _ := c.SourcedClaims(testContext(t), withSources(map[string]any{"src": map[string]any{"JWT": raw}}, "address", "src")); len(got) != 0 {
		t.Errorf("got %s of an inner issuer, want none", got)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("got %d requests inside, want 0", n)
	}
}

func TestPublicAddresses(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2001:4860:4860::8888": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false,
		"10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "::ffff:10.0.0.1": false, "fd00::1": false, "fc00::1": false,
		"169.254.169.254": false, "fe80::1%eth0": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
		"100.64.0.1": false, "198.18.0.1": false, "192.0.0.8": false, "240.0.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b::a00:1": false, "2002:7f00:1::": false,
	} {
		if got := isPublic(netip.MustParseAddr(addr), false); got != want {
			t.Errorf("%s: got public %v, want %v", addr, got, want)
		}
	}
	for _, addr := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		if !isPublic(netip.MustParseAddr(addr), true) {
			t.Errorf("%s: got refused, want it allowed for a server at a loopback address", addr)
		}
	}
	if isPublic(netip.MustParseAddr("10.0.0.1"), true) {
		t.Error("10.0.0.1: got allowed for a server at a loopback address, want it refused")
	}
}

// FuzzClaimSources: nothing comes from a source that no key has signed, whatever the
// server sends.
func FuzzClaimSources(f *testing.F) {
	s := newServer(f, "https://idp.test")
	c := s.client()
	c.http.Transport, c.publicHTTP.Transport = inProcess{s}, inProcess{s}
	good := s.claimsOf()
	f.Add([]byte(`{"address":"src"}`), []byte(`{"src":{"JWT":"`+good+`"}}`))
	f.Add([]byte(`{"address":"src"}`), []byte(`{"src":{"endpoint":"https://x.test/","access_token":"t"}}`))
	f.Add([]byte(`{"a":null,"sub":"src"}`), []byte(`{"src":null}`))
	f.Fuzz(func(t *testing.T, names, sources []byte) {
		got, missing := c.SourcedClaims(t.Context(), map[string]json.RawMessage{claimNames: names, claimSources: sources})
		for name := range got {
			if name != "address" || !strings.Contains(string(sources), "eyJ") {
				t.Errorf("got the claim %s from %q", name, sources)
			}
		}
		for _, m := range missing {
			if !isPrintable(m.Err.Error()) || len(m.Err.Error()) > 2000 {
				t.Errorf("got error %q, want short printable ASCII", m.Err)
			}
		}
	})
}
