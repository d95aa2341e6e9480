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

// process is one life of the program under test. After it has died nothing it
// does reaches the world.
type process struct {
	dead atomic.Bool
	// stalled: it stands still for longer than a lease lasts, so that others
	// may do what it has begun.
	stalled atomic.Bool
}

// behaviour is how the authorization server treats one refresh request. The
// zero value is a success.
type behaviour struct {
	outcome Outcome
	// processed: the server has rotated the refresh token although the outcome
	// is Unanswered (the answer is lost) or Malformed.
	processed bool
	// withRefreshToken: a Malformed answer says the new refresh token.
	withRefreshToken bool
	retryAfter       time.Duration
	connecting       time.Duration // until the connection stands
	before, after    time.Duration // until the request, the answer arrives
}

// authServer is a strict authorization server: each refresh token is good for
// one redemption, a second one revokes the whole family and, if the client had
// the answer to the first, fails the test.
type authServer struct {
	errorf func(format string, args ...any)

	mu       sync.Mutex
	lifetime time.Duration
	// untold: the answers do not say how long an access token lives.
	omitsExpiry bool
	// keeps: the server does not rotate, and sends no refresh token on refresh.
	doesNotRotate bool
	idTokens      bool // each answer holds an ID token
	latency       time.Duration
	behave        func(n int) behaviour // n counts the requests from 1
	identify      func(current Identity, t Tokens) (Identity, error)
	// judging is how long finding out about an ID token takes.
	identifyDelay time.Duration

	requests int
	reuses   int
	families []*family
	access   map[string]time.Time // access token: its expiry
	// discarded are the refresh tokens that were given back.
	discarded []string
}

// family is the tokens that come from one login.
type family struct {
	name     string
	n        int
	current  string
	newest   string // access token
	dead     bool   // revoked: every refresh is rejected
	spent    map[string]*redemption
	inFlight map[string]*process
	// told: a client that is alive has been told of the end.
	rejectionSeen bool
	unclearSeen   bool // a client has been refused without a reason
	redemptions   int  // redemptions
	lost          bool // the server has rotated and the client cannot know
}

// redemption is one use of a refresh token.
type redemption struct {
	by        *process
	delivered bool
}

func newAuthServer(errorf func(string, ...any)) *authServer {
	return &authServer{
		errorf: errorf, lifetime: 5 * time.Minute, latency: 300 * time.Millisecond, access: map[string]time.Time{},
	}
}

// login opens a family.
func (s *authServer) login() (*family, Identity, Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &family{name: fmt.Sprintf("family%03d", len(s.families)), spent: map[string]*redemption{}, inFlight: map[string]*process{}}
	s.families = append(s.families, f)
	t := s.issue(f, time.Now())
	t.RefreshToken = f.current
	return f, Identity{Subject: "subject-of-" + f.name, SID: "sid-of-" + f.name, Claims: []byte(`{"email":"` + f.name + `@example.com"}`)}, t
}

// issue makes the family's next tokens.
func (s *authServer) issue(f *family, sent time.Time) Tokens {
	f.n++
	t := Tokens{AccessToken: fmt.Sprintf("access-token-%s-%04d", f.name, f.n), Obtained: sent}
	if f.current == "" || !s.doesNotRotate {
		f.current = fmt.Sprintf("refresh-token-%s-%04d", f.name, f.n)
		t.RefreshToken = f.current
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

// client is the server as one process sees it.
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
	if err := pass(ctx, b.connecting); err != nil {
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
		c.errorf("unknown refresh token %q presented", refreshToken)
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
	err := pass(ctx, before)
	switch {
	case c.dead.Load():
		return Answer{Outcome: Unanswered, Err: errors.New("nothing has come back")}
	case err != nil:
		return Answer{Outcome: TimedOut, Err: err}
	}
	answer, use := c.decide(f, refreshToken, sent, b)
	err = pass(ctx, b.after)
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

// decide is the moment at which the server acts on a request.
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
		return Answer{Outcome: Malformed, Tokens: Tokens{RefreshToken: t.RefreshToken}, Err: err}, use
	default:
		return Answer{Outcome: b.outcome, Err: err}, use
	}
}

func (c client) Identify(ctx context.Context, current Identity, t Tokens) (Identity, error) {
	c.mu.Lock()
	judging, judge := c.identifyDelay, c.identify
	c.mu.Unlock()
	if err := pass(ctx, judging); err != nil {
		return Identity{}, err
	}
	if judge != nil {
		return judge(current, t)
	}
	return current, nil
}

// Discard notes which refresh tokens were given back.
func (c client) Discard(_ context.Context, t Tokens) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discarded = append(c.discarded, t.RefreshToken)
}

// wantDiscarded checks which refresh tokens were given back.
func (s *authServer) wantDiscarded(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.discarded, want) {
		t.Errorf("given back: %q, want %q", s.discarded, want)
	}
}

// set changes the server's ways.
func (s *authServer) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// always makes the server treat all requests alike.
func (s *authServer) always(b behaviour) {
	s.set(func() { s.behave = func(int) behaviour { return b } })
}

// normal makes the server answer again.
func (s *authServer) normal() { s.set(func() { s.behave = nil }) }

// calls counts the refresh requests.
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

// newestOf returns the last access token of a family and how many refresh
// tokens it has redeemed.
func (s *authServer) newestOf(f *family) (accessToken string, redeems int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.newest, f.redemptions
}
