package dialect

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// user is the subject of every login.
const user = "alice"

// Provider is OrderCloud, Auth0 or Pagero.
type Provider interface {
	rules() rules
}

// rules describe the documented behaviour of one provider.
type rules struct {
	authorizePath, tokenPath string
	clientID, clientSecret   string
	redirectURI              string
	auth                     authentication
	// anyContentType accepts a form of any media type.
	anyContentType bool
	// authorize, code and refresh list the provider's parameters for each kind
	// of request, in addition to the standard ones and client credentials.
	authorize, code, refresh parameters
	// accessLife and refreshLife are the initial lifetimes.
	accessLife, refreshLife time.Duration
	// refreshable reports whether a login gets a refresh token.
	refreshable func(l *login, life time.Duration) bool
	// rotates makes refresh tokens single use: each answer has a new one.
	// rolling starts its lifetime at the refresh, not at the login.
	rotates, rolling bool
	newRefreshToken  func() string
	// answer builds the JSON of a successful token answer.
	answer func(s *Server, t tokens) (map[string]any, error)
	// badClient and badGrant are the errors of the token endpoint.
	badClient, badGrant problem
	// documents are further JSON documents that the server serves, by path.
	documents map[string]func(s *Server) (any, error)
}

// parameters are the required and optional parameters of a request. The
// request must carry exactly the value in required, unless it is "".
type parameters struct {
	required map[string]string
	optional []string
}

// problem is an error answer.
type problem struct {
	status      int
	code        string
	description string
}

// Server speaks one dialect. It is an http.Handler.
type Server struct {
	// URL is the base of its endpoints.
	URL string

	rules rules

	mu          sync.Mutex
	violations  []string
	codes       map[string]*login
	refreshes   map[string]*refreshToken
	accesses    map[string]time.Time // expiry of each access token
	accessLife  time.Duration
	refreshLife time.Duration
	refreshed   int
}

// New returns a server for clients that reach it at url.
func New(url string, p Provider) *Server {
	r := p.rules()
	return &Server{
		URL: url, rules: r, accessLife: r.accessLife, refreshLife: r.refreshLife,
		codes: map[string]*login{}, refreshes: map[string]*refreshToken{}, accesses: map[string]time.Time{},
	}
}

// Start runs a server on a free loopback port until the test ends.
func Start(t testing.TB, p Provider) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New("http://"+listener.Addr().String(), p)
	// Generating the RSA key during a login could take longer than the client's timeout.
	if _, err := signingKey(); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // returns ErrServerClosed at the end
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s
}

// AuthorizationEndpoint is the URL of the authorization endpoint, for clients
// that do not use discovery.
func (s *Server) AuthorizationEndpoint() string { return s.URL + s.rules.authorizePath }

// TokenEndpoint is the URL of the token endpoint, for clients that do not use
// discovery.
func (s *Server) TokenEndpoint() string { return s.URL + s.rules.tokenPath }

// SetLifetimes sets the lifetimes of tokens issued from now on. With a refresh
// lifetime of zero, OrderCloud issues no refresh tokens, and those of the
// others never expire.
func (s *Server) SetLifetimes(access, refresh time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accessLife, s.refreshLife = access, refresh
}

// ExpireRefreshTokens expires all refresh tokens issued so far.
func (s *Server) ExpireRefreshTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.refreshes {
		t.expires = time.Now()
	}
}

// Violations lists the deviations of clients from the documentation.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Refreshes counts successful refreshes.
func (s *Server) Refreshes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refreshed
}

// SentTwice lists the refresh tokens that clients sent more than once, sorted.
// Pagero's refresh tokens are single use: the list must stay empty.
func (s *Server) SentTwice() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var twice []string
	for value, t := range s.refreshes {
		if t.sent > 1 {
			twice = append(twice, value)
		}
	}
	slices.Sort(twice)
	return twice
}

// Issued reports whether the server issued the access token, expired or not.
func (s *Server) Issued(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, issued := s.accesses[token]
	return issued
}

// ValidAccessToken reports whether the server issued the access token and it
// has not expired.
func (s *Server) ValidAccessToken(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	expires, ok := s.accesses[token]
	return ok && time.Now().Before(expires)
}

// Secrets lists all issued codes and tokens.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(slices.Collect(maps.Keys(s.codes)), slices.Collect(maps.Keys(s.refreshes)), slices.Collect(maps.Keys(s.accesses)))
}

// ServeHTTP serves the provider's endpoints.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	switch r.URL.Path {
	case s.rules.authorizePath:
		s.authorize(w, r)
	case s.rules.tokenPath:
		s.token(w, r)
	default:
		document := s.rules.documents[r.URL.Path]
		if document == nil {
			s.recordViolation("request to " + r.URL.Path)
			http.NotFound(w, r)
			return
		}
		v, err := document(s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

func (s *Server) recordViolation(violation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, violation)
}

// check compares the parameters of a request with the allowed ones and returns
// the violations.
func (p parameters) check(got url.Values) []string {
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(got)) {
		want, required := p.required[name]
		switch value := got.Get(name); {
		case len(got[name]) > 1:
			wrong = append(wrong, "parameter "+name+" is repeated")
		case !required && !slices.Contains(p.optional, name):
			wrong = append(wrong, "unknown parameter "+name)
		case value == "":
			wrong = append(wrong, "parameter "+name+" is empty")
		case want != "" && value != want:
			wrong = append(wrong, fmt.Sprintf("parameter %s is not %q", name, want))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.required)) {
		if !got.Has(name) {
			wrong = append(wrong, "parameter "+name+" is missing")
		}
	}
	return wrong
}

// with returns p with more required parameters. Those of p win.
func (p parameters) with(required map[string]string) parameters {
	all := map[string]string{}
	maps.Copy(all, required)
	maps.Copy(all, p.required)
	return parameters{required: all, optional: p.optional}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has disconnected
}
