package handler

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	appOrigin     = "https://app.test"
	loopback      = "http://localhost:8080"
	sessionCookie = hostPrefix + defaultCookieName
	clientSecret  = "CS_9c1f0f1b6a"
)

// authServer is a fake authorization server on a socket. Each connection serves one
// request, so that a client in a synctest bubble has no idle connection.
type authServer struct {
	*fakeas.Server
	revoked chan struct{} // one for each answer of the revocation endpoint
}

func startAuthServer(t testing.TB) *authServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := fakeas.Client{ID: "app", Secret: clientSecret}
	for _, origin := range []string{appOrigin, loopback} {
		client.RedirectURIs = append(client.RedirectURIs, origin+"/oauth2/callback")
		client.PostLogoutRedirectURIs = append(client.PostLogoutRedirectURIs, origin+"/oauth2/logout/callback")
	}
	as := &authServer{
		Server:  fakeas.New(fakeas.Options{URL: "http://" + listener.Addr().String(), Clients: []fakeas.Client{client}}),
		revoked: make(chan struct{}, 100),
	}
	as.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		as.ServeHTTP(w, r)
		if r.URL.Path == "/revoke" {
			as.revoked <- struct{}{}
		}
	})}
	server.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // returns ErrServerClosed at the end
	}()
	t.Cleanup(func() {
		as.Close()
		_ = server.Close()
		<-done
	})
	return as
}

// codesRedeemed counts the requests with a code at the token endpoint.
func (as *authServer) codesRedeemed() int { return as.Stats().Grants[fakeas.GrantCode] }

// rig is a site: a Handler with a real client, keeper and store, in front of an
// app, with its own authorization server.
type rig struct {
	t       testing.TB
	as      *authServer
	store   *flakyStore
	keeper  *keeper.Keeper
	handler *Handler
	app     *app
	log     *logBuffer

	mu      sync.Mutex
	answers []*answer // everything that went to browsers
	secrets []string  // in addition to those of the authorization server
}

// setup has the configuration that options of newRig change.
type setup struct {
	origin  string
	oauth   oauth.Config
	session keeper.Config
	handler Config
}

// plainOAuth configures the two endpoints only: no metadata, no ID token.
func plainOAuth(s *setup) {
	base := s.oauth.Issuer
	s.oauth.Issuer = ""
	s.oauth.Endpoints = oauth.Endpoints{
		Authorization: base + "/authorize", Token: base + "/token",
		Revocation: base + "/revoke", UserInfo: base + "/userinfo",
	}
}

func newRig(t testing.TB, options ...func(*setup)) *rig {
	t.Helper()
	return newRigAt(t, startAuthServer(t), options...)
}

// newRigAt makes a site at a server that has been started. At the end of the test
// it checks that no secret has reached a browser or the log.
func newRigAt(t testing.TB, as *authServer, options ...func(*setup)) *rig {
	t.Helper()
	g := &rig{t: t, as: as, store: &flakyStore{Store: memory.New()}, app: &app{}, log: &logBuffer{}}
	vault := keeper.NewVault(g.store)
	t.Cleanup(func() {
		g.store.down.Store(false)
		if err := vault.Close(context.Background()); err != nil {
			t.Errorf("closing the vault: got error %v, want none", err)
		}
		_ = g.store.Close()
		g.checkNoSecretLeaked()
	})
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	s := setup{
		origin: appOrigin,
		oauth:  oauth.Config{Issuer: as.URL, ClientID: "app", ClientSecret: func() (string, error) { return clientSecret, nil }},
		session: keeper.Config{
			Vault: vault, Site: seal.NewSite(ring, as.URL, "app", ""),
			IdleTimeout: 8 * time.Hour, MaxLifetime: 24 * time.Hour,
			RefreshTimeout: 10 * time.Second, DefaultTokenLifetime: 5 * time.Minute,
		},
	}
	s.handler.Logger = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), g.log, zapcore.DebugLevel))
	s.session.Observe = NewObserver(s.handler.Logger)
	for _, option := range options {
		option(&s)
	}
	client, err := oauth.New(s.oauth)
	if err != nil {
		t.Fatal(err)
	}
	s.session.Refresher = Refresher{Client: client, UserInfo: s.handler.UserInfo}
	if g.keeper, err = keeper.New(s.session); err != nil {
		t.Fatal(err)
	}
	s.handler.Client, s.handler.Keeper = client, g.keeper
	if s.handler.Origin == nil {
		s.handler.Origin = func(*http.Request) (string, error) { return s.origin, nil }
	}
	if g.handler, err = New(s.handler); err != nil {
		t.Fatal(err)
	}
	return g
}

// session makes a session without a login. Its refresh token is one the
// server does not know.
func (g *rig) session(claims string) (cookie string) {
	g.t.Helper()
	return g.sessionOf(keeper.Identity{Subject: "alice", Claims: json.RawMessage(claims)}, keeper.Tokens{
		AccessToken: "AT_made_by_hand", RefreshToken: "RT_made_by_hand", Expires: time.Now().Add(time.Hour),
	})
}

func (g *rig) sessionOf(who keeper.Identity, tokens keeper.Tokens) (cookie string) {
	g.t.Helper()
	secret, _, err := g.keeper.Create(context.Background(), who, tokens)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.secrets = append(g.secrets, tokens.AccessToken, tokens.RefreshToken)
	return secret.Cookie()
}

// answer is the answer that a browser got.
type answer struct {
	uri     string
	status  int
	header  http.Header
	body    string
	err     error // what ServeHTTP returned
	relayed int   // how often the app was asked
}

func (a *answer) location() string { return a.header.Get("Location") }

// problem returns the problem document of an answer.
func (a *answer) problem(t testing.TB) problem {
	t.Helper()
	var p problem
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%s: status %d, Content-Type %q: %.200q, want a problem document", a.uri, a.status, got, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%s: got error %v in %q, want JSON", a.uri, err, a.body)
	}
	return p
}

// request returns a request as a server reads it from the connection. The lines of
// the header ("Name: value") keep their spelling.
func (g *rig) request(method, target string, header ...string) *http.Request {
	g.t.Helper()
	r, err := readRequest(method, target)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	return r
}

func readRequest(method, target string) (*http.Request, error) {
	return http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: app.test\r\n\r\n")))
}

// do serves a request. It checks that the request has its former header afterwards,
// apart from the module's cookies.
func (g *rig) do(r *http.Request) *answer {
	g.t.Helper()
	before, passed := r.Header.Clone(), g.app.count()
	w := httptest.NewRecorder()
	err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve))
	if r.Header["Cookie"] == nil || !slices.Equal(r.Header["Cookie"], before["Cookie"]) {
		for _, line := range r.Header["Cookie"] {
			if strings.Contains(line, sessionCookie+"=") || strings.Contains(line, loginCookiePrefix) {
				g.t.Errorf("%s %s: got %q on the request afterwards, want no own cookie", r.Method, r.RequestURI, line)
			}
		}
		delete(before, "Cookie")
	}
	after := r.Header.Clone()
	if before["Cookie"] == nil {
		delete(after, "Cookie")
	}
	if diff := cmp.Diff(before, after); diff != "" {
		g.t.Errorf("%s %s: got another header after the request (-before +after):\n%s", r.Method, r.RequestURI, diff)
	}
	a := &answer{
		uri: r.Method + " " + r.RequestURI, status: w.Code, header: w.Result().Header, body: w.Body.String(),
		err: err, relayed: g.app.count() - passed,
	}
	if a.relayed == 0 && r.Method == http.MethodHead && a.body != "" && a.header.Get("Content-Type") != "application/problem+json" {
		g.t.Errorf("%s: got a body in the answer to HEAD, want none", a.uri)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers = append(g.answers, a)
	return a
}

func (g *rig) get(target string, header ...string) *answer {
	g.t.Helper()
	return g.do(g.request(http.MethodGet, target, header...))
}

func (g *rig) post(target string, header ...string) *answer {
	g.t.Helper()
	return g.do(g.request(http.MethodPost, target, header...))
}

var idTokenHint = regexp.MustCompile(`id_token_hint=[^&"\\]*`)

// checkNoSecretLeaked looks for every secret in all answers and in the log.
func (g *rig) checkNoSecretLeaked() {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	secrets := append(append(g.as.Secrets(), g.secrets...), clientSecret)
	texts := map[string]string{"the log": g.log.text()}
	for _, a := range g.answers {
		var b bytes.Buffer
		_ = a.header.Write(&b)
		text := b.String() + a.body
		if strings.HasPrefix(a.uri, "POST /oauth2/logout") {
			// Other tests cover the ID token there.
			text = idTokenHint.ReplaceAllString(text, "")
		}
		texts["the answer to "+a.uri] += text
	}
	for where, text := range texts {
		for _, secret := range secrets {
			if secret != "" && strings.Contains(text, secret) {
				g.t.Errorf("%s: got the secret %.12s…, want none", where, secret)
			}
		}
	}
}

// app is the protected app. It records its requests.
type app struct {
	answer func(http.ResponseWriter, *http.Request) error // nil: 200

	mu   sync.Mutex
	seen []*http.Request
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) error {
	seen := r.Clone(r.Context())
	a.mu.Lock()
	a.seen = append(a.seen, seen)
	a.mu.Unlock()
	if a.answer != nil {
		return a.answer(w, r)
	}
	_, err := io.WriteString(w, "the app at "+r.RequestURI)
	return err
}

func (a *app) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

// last returns the header of the last request at the app.
func (a *app) last() http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) == 0 {
		return nil
	}
	return a.seen[len(a.seen)-1].Header
}

// flakyStore is a store in memory that can fail.
type flakyStore struct {
	*memory.Store
	down  atomic.Bool
	calls atomic.Int64 // how often

	mu   sync.Mutex
	kept map[session.ID]session.Item
	// refuse selects the writes that fail. They change nothing.
	refuse func(session.Item) bool
	// frozen makes reads wait until their context ends.
	frozen bool
}

// items returns the number of stored items.
func (s *flakyStore) items() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)
}

// setFault changes the faults of a store that is up.
func (s *flakyStore) setFault(frozen bool, refuse func(session.Item) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen, s.refuse = frozen, refuse
}

// write performs and records a write, unless it is refused.
func (s *flakyStore) write(id session.ID, item session.Item, do func() error) error {
	if err := s.fail(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil && s.refuse(item) {
		return errStoreDown
	}
	err := do()
	if err == nil {
		if s.kept == nil {
			s.kept = map[session.ID]session.Item{}
		}
		s.kept[id] = item
	}
	return err
}

var errStoreDown = errors.New("connection refused by the store")

func (s *flakyStore) fail() error {
	s.calls.Add(1)
	if s.down.Load() {
		return errStoreDown
	}
	return nil
}

func (s *flakyStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := s.fail(); err != nil {
		return err
	}
	s.mu.Lock()
	frozen := s.frozen
	s.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Store.View(ctx, id, f)
}

func (s *flakyStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.write(id, item, func() error { return s.Store.Create(ctx, id, item) })
}

func (s *flakyStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.write(id, item, func() error { return s.Store.Replace(ctx, id, item) })
}

func (s *flakyStore) Delete(ctx context.Context, id session.ID) error {
	err := s.write(id, session.Item{}, func() error { return s.Store.Delete(ctx, id) })
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.kept, id)
	}
	return err
}

// logBuffer keeps the log's lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Sync implements zapcore.WriteSyncer.
func (l *logBuffer) Sync() error { return nil }

func (l *logBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// lines returns the log lines that contain a word.
func (l *logBuffer) lines(word string) []string {
	var found []string
	for line := range strings.Lines(l.text()) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}
