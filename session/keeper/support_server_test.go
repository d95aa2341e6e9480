package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// process is one run of the program under test. After its death it has no effect on the
// store and the server.
type process struct {
	dead atomic.Bool
	// stalled is set while the process is stopped for longer than leaseTimeout, so that
	// another process may send the same refresh token.
	stalled atomic.Bool
}

// behaviour is how the authorization server treats one refresh request. The
// zero value is a success.
type behaviour struct {
	outcome Outcome
	// processed means that the server has rotated the refresh token although the outcome
	// is Unanswered (the answer is lost) or Malformed.
	processed bool
	// withRefreshToken means that a Malformed answer has the new refresh token.
	withRefreshToken bool
	retryAfter       time.Duration
	connecting       time.Duration // the duration of connecting
	before, after    time.Duration // the delays of the request and of the answer
}

// authServer is a strict authorization server. Each refresh token can be redeemed once. A
// second redemption revokes the whole family. If the client had the answer to the first
// one, the second fails the test.
type authServer struct {
	errorf func(format string, args ...any)

	mu       sync.Mutex
	lifetime time.Duration
	// omitsExpiry means that the answers have no expires_in.
	omitsExpiry bool
	// doesNotRotate means that the answer to a refresh has no refresh token.
	doesNotRotate bool
	idTokens      bool // each answer holds an ID token
	// refreshLifetime is what the answers say about the refresh token. Zero: nothing.
	refreshLifetime time.Duration
	latency         time.Duration
	behave          func(n int) behaviour // n counts the requests from 1
	identify        func(current Identity, t Tokens) (Identity, error)
	// identifyDelay is how long the verification of an ID token takes.
	identifyDelay time.Duration

	requests int
	reuses   int
	families []*family
	access   map[string]time.Time // access token: its expiry
	// discarded are the revoked refresh tokens.
	discarded []string
}

// family is the set of tokens of one login.
type family struct {
	name     string
	n        int
	current  string
	newest   string // access token
	dead     bool   // revoked: the server rejects every refresh
	spent    map[string]*redemption
	inFlight map[string]*process
	// rejectionSeen means that a living client has got the rejection.
	rejectionSeen bool
	unclearSeen   bool // a client has got an unclear refusal
	redemptions   int
	lost          bool // the server has rotated, and the answer is lost
}

// redemption is the redemption of a refresh token.
type redemption struct {
	by        *process
	delivered bool
}

func newAuthServer(errorf func(string, ...any)) *authServer {
	return &authServer{
		errorf: errorf, lifetime: 5 * time.Minute, latency: 300 * time.Millisecond, access: map[string]time.Time{},
	}
}

// login returns the first tokens of a new family.
func (s *authServer) login() (*family, Identity, Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &family{name: fmt.Sprintf("family%03d", len(s.families)), spent: map[string]*redemption{}, inFlight: map[string]*process{}}
	s.families = append(s.families, f)
	t := s.issue(f, time.Now())
	t.RefreshToken = f.current
	return f, Identity{Subject: "subject-of-" + f.name, SID: "sid-of-" + f.name, Claims: []byte(`{"email":"` + f.name + `@example.com"}`)}, t
}

// issue returns the next tokens of a family.
func (s *authServer) issue(f *family, sent time.Time) Tokens {
	f.n++
	t := Tokens{AccessToken: fmt.Sprintf("access-token-%s-%04d", f.name, f.n), Obtained: sent}
	if f.current == "" || !s.doesNotRotate {
		f.current = fmt.Sprintf("refresh-token-%s-%04d", f.name, f.n)
		t.RefreshToken = f.current
	}
	if s.refreshLifetime > 0 {
		t.RefreshExpires = sent.Add(s.refreshLifetime)
	}
	if s.idTokens {
		t.IDToken = fmt.Sprintf("id-token-%s-%04d", f.name, f.n)
	}
	f.newest = t.AccessToken
	s.access[t.AccessToken] = sent.Add(s.lifetime)
	if !s.omitsExpiry {
		t.Expires = sent.Add(s.lifetime)
	}
	return t
}

// client is the client of the server in one process.
type client struct {
	*authServer
	*process
}

func (s *authServer) client(p *process) Refresher { return client{s, p} }

func (c client) Refresh(ctx context.Context, refreshToken string, confirm func() error) Answer {
	c.mu.Lock()
	b := behaviour{}
	if c.behave != nil {
		b = c.behave(c.requests + 1)
	}
	c.mu.Unlock()
	if err := waitFor(ctx, b.connecting); err != nil {
		return Answer{Outcome: Unavailable, Err: err}
	}
	if err := confirm(); err != nil {
		return Answer{Outcome: Unavailable, Err: err}
	}
	sent := time.Now()
	c.mu.Lock()
	c.requests++
	before := b.before + c.latency
	f := c.familyOf(refreshToken)
	if f == nil {
		c.errorf("unknown refresh token %q", refreshToken)
		c.mu.Unlock()
		return Answer{Outcome: Rejected, Err: errors.New("invalid_grant")}
	}
	if other := f.inFlight[refreshToken]; other != nil && !other.dead.Load() && !other.stalled.Load() {
		c.errorf("%s is being redeemed twice at the same time", refreshToken)
	}
	f.inFlight[refreshToken] = c.process
	c.mu.Unlock()

	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.inFlight[refreshToken] == c.process {
			delete(f.inFlight, refreshToken)
		}
	}()
	err := waitFor(ctx, before)
	switch {
	case c.dead.Load():
		return Answer{Outcome: Unanswered, Err: errors.New("no answer")}
	case err != nil:
		return Answer{Outcome: TimedOut, Err: err}
	}
	answer, use := c.decide(f, refreshToken, sent, b)
	err = waitFor(ctx, b.after)
	switch {
	case c.dead.Load():
		answer = Answer{Outcome: Unanswered, Err: errors.New("the connection broke")}
	case err != nil:
		answer = Answer{Outcome: TimedOut, Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if use != nil && answer.Tokens.RefreshToken == "" && !c.doesNotRotate {
		f.lost = true
	}
	if use != nil {
		use.delivered = answer.Tokens.RefreshToken != "" || c.doesNotRotate
	}
	switch answer.Outcome {
	case Rejected:
		f.rejectionSeen = true
	case Unclear:
		f.unclearSeen = true
	}
	return answer
}

func (c client) familyOf(refreshToken string) *family {
	for _, f := range c.families {
		if f.current == refreshToken || f.spent[refreshToken] != nil {
			return f
		}
	}
	return nil
}

// decide processes a request at the server. The redemption is nil if the server did not
// redeem the token.
func (c client) decide(f *family, refreshToken string, sent time.Time, b behaviour) (Answer, *redemption) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := errors.New(b.outcome.String())
	switch {
	case b.outcome != Refreshed && !b.processed:
		return Answer{Outcome: b.outcome, RetryAfter: b.retryAfter, Err: err}, nil
	case f.current != refreshToken:
		c.reuses++
		if first := f.spent[refreshToken]; first.delivered && !first.by.dead.Load() {
			c.errorf("%s was redeemed a second time", refreshToken)
		}
		f.dead = true
		fallthrough
	case f.dead:
		return Answer{Outcome: Rejected, Err: errors.New("invalid_grant")}, nil
	}
	use := &redemption{by: c.process}
	f.redemptions++
	if !c.doesNotRotate {
		f.spent[refreshToken] = use
	}
	t := c.issue(f, sent)
	switch {
	case b.outcome == Refreshed:
		return Answer{Tokens: t}, use
	case b.outcome == Malformed && b.withRefreshToken:
		return Answer{Outcome: Malformed, Tokens: Tokens{RefreshToken: t.RefreshToken, RefreshExpires: t.RefreshExpires}, Err: err}, use
	default:
		return Answer{Outcome: b.outcome, Err: err}, use
	}
}

func (c client) Identify(ctx context.Context, current Identity, t Tokens) (Identity, error) {
	c.mu.Lock()
	delay, identify := c.identifyDelay, c.identify
	c.mu.Unlock()
	if err := waitFor(ctx, delay); err != nil {
		return Identity{}, err
	}
	if identify != nil {
		return identify(current, t)
	}
	return current, nil
}

// Discard records the revoked refresh tokens.
func (c client) Discard(_ context.Context, t Tokens) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discarded = append(c.discarded, t.RefreshToken)
}

// wantDiscarded checks which refresh tokens were revoked.
func (s *authServer) wantDiscarded(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.discarded, want) {
		t.Errorf("revoked tokens: %q, want %q", s.discarded, want)
	}
}

// set changes fields of the server under its mutex.
func (s *authServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// always sets the behaviour for all further requests.
func (s *authServer) always(b behaviour) {
	s.set(func() { s.behave = func(int) behaviour { return b } })
}

// normal makes the server answer all further requests with success.
func (s *authServer) normal() { s.set(func() { s.behave = nil }) }

// calls returns the number of refresh requests.
func (s *authServer) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// expiry returns when an access token of this server expires.
func (s *authServer) expiry(accessToken string) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.access[accessToken]
	return t, ok
}

// newestOf returns the last access token of a family and the number of its redemptions.
func (s *authServer) newestOf(f *family) (accessToken string, redemptions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.newest, f.redemptions
}
