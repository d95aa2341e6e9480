package oauth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// Errors must never contain a secret. All secrets contain the canary.
const (
	canary         = "canary7f3a"
	testSecret     = canary + "-client secret/+%:&=-of-32-bytes"
	testCode       = canary + "-code"
	testVerifier   = canary + "-verifier-0123456789012345678901234567890123456789"
	testRefresh    = canary + "-refresh"
	testAccess     = canary + "-access"
	testClient     = "client:id+1"
	testNonce      = "nonce-of-this-login"
	testRedirect   = "http://127.0.0.1/oauth2/callback"
	testStateValue = "state-of-this-login"
)

// server is an authorization server with replaceable responses.
type server struct {
	t        testing.TB
	issuer   string
	metadata map[string]any

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc // by path, in place of the default
	hits     map[string]int
	forms    []url.Values // posted, oldest first
	headers  []http.Header
	keys     []any // members of the key set
}

// newServer returns a server for the given issuer. It does not listen.
func newServer(t testing.TB, issuer string) *server {
	return &server{
		t:      t,
		issuer: issuer,
		metadata: map[string]any{
			"issuer":                 issuer,
			"authorization_endpoint": issuer + "/authorize?tenant=a%20b",
			"token_endpoint":         issuer + "/token",
			"userinfo_endpoint":      issuer + "/userinfo",
			"jwks_uri":               issuer + "/jwks",
			"revocation_endpoint":    issuer + "/revoke",
			"end_session_endpoint":   issuer + "/logout",

			"id_token_signing_alg_values_supported": []string{"ES256"},
		},
		handlers: make(map[string]http.HandlerFunc),
		hits:     make(map[string]int),
		keys:     []any{publicJWK(keyA(), "a")},
	}
}

// startServer returns a server that listens on a loopback port.
func startServer(t testing.TB) *server {
	s := newServer(t, "")
	hs := httptest.NewServer(s)
	t.Cleanup(hs.Close)
	*s = *newServer(t, hs.URL)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	s.hits[r.URL.Path]++
	if r.Method == http.MethodPost {
		form, _ := url.ParseQuery(string(body))
		s.forms = append(s.forms, form)
		s.headers = append(s.headers, r.Header.Clone())
	}
	h := s.handlers[r.URL.Path]
	keys, meta := s.keys, maps.Clone(s.metadata)
	s.mu.Unlock()
	switch {
	case h != nil:
		h(w, r)
	case r.URL.Path == "/.well-known/openid-configuration":
		writeJSON(w, meta)
	case r.URL.Path == "/jwks":
		writeJSON(w, map[string]any{"keys": keys})
	default:
		http.NotFound(w, r)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// respond replaces the response of a path. Headers are name, value pairs.
func (s *server) respond(path string, status int, body string, header ...string) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// handle replaces the handler of a path; nil restores the default.
func (s *server) handle(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
}

func (s *server) setKeys(keys ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
}

func (s *server) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits[path]
}

// lastPost returns the last form and its header.
func (s *server) lastPost() (url.Values, http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.forms) == 0 {
		s.t.Fatal("nothing was posted")
	}
	return s.forms[len(s.forms)-1], s.headers[len(s.headers)-1]
}

func secret() (string, error) { return testSecret, nil }

// config returns the configuration of a confidential OpenID client.
func (s *server) config() Config {
	return Config{Issuer: s.issuer, ClientID: testClient, ClientSecret: secret}
}

func (s *server) client(change ...func(*Config)) *Client {
	s.t.Helper()
	cfg := s.config()
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// inProcess calls a handler without a network, so that a test can run in a
// synctest bubble.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	done := make(chan *http.Response, 1)
	in := r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, in)
		done <- w.Result()
	}()
	select {
	case resp := <-done:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// newSynctestServer returns a server and a client that work in a synctest bubble.
func newSynctestServer(t testing.TB, change ...func(*Config)) (*server, *Client) {
	s := newServer(t, "https://idp.test")
	c := s.client(change...)
	c.http.Transport = inProcess{s}
	return s, c
}

// testContext returns a context that stops a test that hangs.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

var (
	keyA    = sync.OnceValue(func() *ecdsa.PrivateKey { return newECKey(elliptic.P256()) })
	keyB    = sync.OnceValue(func() *ecdsa.PrivateKey { return newECKey(elliptic.P256()) })
	key384  = sync.OnceValue(func() *ecdsa.PrivateKey { return newECKey(elliptic.P384()) })
	rsaKey  = sync.OnceValue(func() *rsa.PrivateKey { return newRSAKey(2048) })
	weakRSA = sync.OnceValue(func() *rsa.PrivateKey { return newRSAKey(1024) })
	edKey   = sync.OnceValue(newEdKey)
)

func newECKey(curve elliptic.Curve) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(curve, rand.Reader))
}

func newEdKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return must(key, err)
}

func newRSAKey(bits int) *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, bits)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// publicJWK returns the members of a public key, with the given changes.
func publicJWK(key crypto.Signer, kid string, change ...any) map[string]any {
	data := must(json.Marshal(jose.JSONWebKey{Key: key.Public(), KeyID: kid}))
	var members map[string]any
	if err := json.Unmarshal(data, &members); err != nil {
		panic(err)
	}
	return edit(members, change...)
}

// edit returns a copy with changes, given as name, value pairs. The value nil removes
// a member.
func edit(members map[string]any, change ...any) map[string]any {
	members = maps.Clone(members)
	for i := 0; i+1 < len(change); i += 2 {
		if change[i+1] == nil {
			delete(members, change[i].(string))
			continue
		}
		members[change[i].(string)] = change[i+1]
	}
	return members
}

// idClaims returns the claims of a valid ID token, with the given changes.
func (s *server) idClaims(change ...any) map[string]any {
	now := time.Now()
	return edit(map[string]any{
		"iss": s.issuer, "aud": testClient, "sub": "alice", "nonce": testNonce,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "sid": "sid-1",
	}, change...)
}

// sign makes a JWT. Headers are name, value pairs.
func sign(method jwt.SigningMethod, key any, claims map[string]any, header ...any) string {
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	token.Header = edit(token.Header, header...)
	return must(token.SignedString(key))
}

// idToken returns an ID token with the given changes, signed with key A.
func (s *server) idToken(change ...any) string {
	return sign(jwt.SigningMethodES256, keyA(), s.idClaims(change...), "kid", "a")
}

// checkNoSecret fails the test if an error contains a secret.
func checkNoSecret(t testing.TB, err error) {
	t.Helper()
	for e := err; e != nil; {
		if strings.Contains(e.Error(), canary) {
			t.Errorf("got error %v, want one without secrets", e)
		}
		if len(e.Error()) > 2000 || !isPrintable(e.Error()) {
			t.Errorf("got error %q, want at most 2000 printable characters", e.Error())
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			return
		}
		e = u.Unwrap()
	}
}
