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

// user is who logs in, always.
const user = "alice"

// Provider is OrderCloud, Auth0 or Pagero.
type Provider interface {
	rules() rules
}

// rules are what one provider documents, as data.
type rules struct {
	authorizePath, tokenPath string
	clientID, clientSecret   string
	redirectURI              string
	auth                     authentication
	// anyContentType takes a form under any media type.
	anyContentType bool
	// authorize, code and refresh name the parameters besides those that
	// every such request has, and client credentials.
	authorize, code, refresh parameters
	// accessLife and refreshLife are the lifetimes to begin with.
	accessLife, refreshLife time.Duration
	// refreshable says whether a login gets a refresh token.
	refreshable func(l *login, life time.Duration) bool
	// rotates gives a new refresh token in every answer and spends the old;
	// rolling lets each new one live anew.
	rotates, rolling bool
	newRefreshToken  func() string
	// answer shapes a successful token answer.
	answer func(s *Server, t tokens) (map[string]any, error)
	// badClient and badGrant are the errors of the token endpoint.
	badClient, badGrant problem
	// extra serves further endpoints, by path.
	extra map[string]func(s *Server) (any, error)
}

// parameters are names that a request must or may carry. A required one with
// a value must have that value.
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
	accesses    map[string]time.Time // when they end
	accessLife  time.Duration
	refreshLife time.Duration
	redeemed    int
}

// New makes a server that is reached at url.
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
	if _, err := signingKey(); err != nil { // made here, since a client in the midst of a login does not wait for long
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

// AuthorizationEndpoint and TokenEndpoint are for clients that are told their
// endpoints.
func (s *Server) AuthorizationEndpoint() string { return s.URL + s.rules.authorizePath }

// TokenEndpoint is where codes and refresh tokens are redeemed.
func (s *Server) TokenEndpoint() string { return s.URL + s.rules.tokenPath }

// SetLifetimes changes how long tokens live that are issued from now on. A
// refresh lifetime of zero means none are issued (OrderCloud) or that they do
// not end.
func (s *Server) SetLifetimes(access, refresh time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accessLife, s.refreshLife = access, refresh
}

// ExpireRefreshTokens ends the life of all refresh tokens issued so far, as if
// their time had passed.
func (s *Server) ExpireRefreshTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.refreshes {
		t.ends = time.Now()
	}
}

// Violations lists what clients did that the documentation does not allow.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Refreshes counts successful refreshes.
func (s *Server) Refreshes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.redeemed
}

// SentTwice lists the refresh tokens that came in more than once. For Pagero
// there must be none.
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

// Issued reports whether an access token was issued here, however long ago.
func (s *Server) Issued(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, issued := s.accesses[token]
	return issued
}

// ValidAccessToken reports whether a token was issued here and has not
// expired.
func (s *Server) ValidAccessToken(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ends, ok := s.accesses[token]
	return ok && time.Now().Before(ends)
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
		f := s.rules.extra[r.URL.Path]
		if f == nil {
			s.violate("request to " + r.URL.Path)
			http.NotFound(w, r)
			return
		}
		v, err := f(s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, http.StatusOK, v)
	}
}

func (s *Server) violate(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, what)
}

// check compares what came with what may come, and returns what is wrong.
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

// with adds required parameters.
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
	_ = json.NewEncoder(w).Encode(v) // a client that has gone is no fault of ours
}
