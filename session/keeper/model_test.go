package keeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// The time limits are short, so that the examples reach them.
const (
	modelIdle     = 40 * time.Minute
	modelMax      = 4 * time.Hour
	modelLifetime = 5 * time.Minute
	modelTimeout  = 10 * time.Second
)

// TestKeeperKeepsItsPromises drives a keeper, a store and an authorization server through
// drawn sequences of requests, pauses, faults, logouts, reloads and crashes. Each example
// has its own bubble.
func TestKeeperKeepsItsPromises(t *testing.T) {
	for part := range 8 {
		t.Run(fmt.Sprint(part), rapid.MakeCheck(func(t *rapid.T) { rapid.SyncTest(t, modelExample) }))
	}
}

func modelExample(t *rapid.T) {
	m := newModel(t)
	t.Cleanup(m.crash) // ends the goroutines of an example that fails
	actions := m.actions()
	maps.Copy(actions, map[string]func(*rapid.T){
		"request":      m.request,
		"request more": m.request,
		"burst":        m.burst,
		"store":        m.changeStore,
		"revoke":       m.revoke,
		"logout":       m.logout,
		"reload":       m.reload,
		"crash":        func(*rapid.T) { m.crash(); m.start() },
		"restart":      func(*rapid.T) { m.restart() },
	})
	t.Repeat(actions)
	m.recover(t)
}

// model is the expected state of one process, its store and its authorization server.
type model struct {
	store    *fakeStore
	server   *authServer
	site     *seal.Site
	config   Config
	process  *process
	kill     context.CancelFunc // cuts the process off from its store
	vault    *Vault
	keepers  []*Keeper // on one vault; the last is the newest
	requests sync.WaitGroup

	mu         sync.Mutex
	violations []string
	sessions   []*modelSession
	// readable is when the store last became readable. Zero: it is not readable.
	readable time.Time
}

// modelSession is the expected state of one session.
type modelSession struct {
	secret      seal.Secret
	family      *family
	created     time.Time
	lastUse     time.Time // the start of the last successful request
	lastRequest time.Time // the start of the last request
	loggingOut  bool      // a logout has begun
	loggedOut   bool      // a logout has returned
	over        bool      // a request has found the end
	foreign     bool      // a refresh brought an ID token of another login
	lost        bool      // a crash lost the only copy of its tokens
	token       string    // the last access token that the living process has served
}

func newModel(t *rapid.T) *model {
	m := &model{store: newFakeStore()}
	m.drawServer(t)
	m.start()
	m.login(t)
	return m
}

// drawServer draws the authorization server and makes the site. The store is readable.
func (m *model) drawServer(t *rapid.T) {
	m.readable = time.Now()
	m.server = newAuthServer(m.violate)
	m.server.lifetime = modelLifetime
	m.server.latency = rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 4 * time.Second}).Draw(t, "latency")
	m.server.idTokens = rapid.Bool().Draw(t, "ID tokens")
	m.server.identifyDelay = rapid.SampledFrom([]time.Duration{0, 150 * time.Millisecond, 2 * time.Second}).Draw(t, "verification")
	m.server.doesNotRotate = rapid.IntRange(0, 4).Draw(t, "does not rotate") == 0
	ring, err := seal.NewKeyRing(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	m.site = seal.NewSite(ring, "issuer", "client", "cookie")
}

// configOf is the configuration of a keeper in a process.
func (m *model) configOf(v *Vault, p *process) Config {
	return Config{
		Vault: v, Site: m.site, Refresher: m.server.client(p),
		IdleTimeout: modelIdle, MaxLifetime: modelMax, RefreshTimeout: modelTimeout, DefaultTokenLifetime: modelLifetime,
		Observe: func(e Event) {
			if e.Kind == EventEnded && e.Reason == "" {
				m.violate("a session ended without a reason")
			}
		},
	}
}

// actions are the actions of a model of one process and of several.
func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":            m.check,
		"login":       m.login,
		"time":        m.time,
		"time to due": func(*rapid.T) { time.Sleep(modelLifetime * 9 / 10) },
		"time to end": func(*rapid.T) { time.Sleep(modelLifetime) },
		"server":      m.changeServer,
		"identity":    m.changeIdentity,
	}
}

// violate records a broken promise. check fails the example.
func (m *model) violate(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.violations = append(m.violations, fmt.Sprintf(format, args...))
}

func (m *model) check(t *rapid.T) {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.violations) > 0 {
		t.Fatalf("at %v: %s", time.Now().Format("15:04:05.000"), strings.Join(m.violations, "; "))
	}
}

func (m *model) time(t *rapid.T) {
	time.Sleep(rapid.SampledFrom([]time.Duration{
		time.Millisecond, 100 * time.Millisecond, time.Second, 7 * time.Second, 50 * time.Second, 2 * time.Minute, 11 * time.Minute, 38 * time.Minute, 41 * time.Minute,
	}).Draw(t, "passes"))
}

func (m *model) pick(t *rapid.T) *modelSession {
	return m.sessions[rapid.IntRange(0, len(m.sessions)-1).Draw(t, "session")]
}

func (m *model) newest() *Keeper { return m.keepers[len(m.keepers)-1] }

func (m *model) login(t *rapid.T) {
	f, who, tokens := m.server.login()
	secret, s, err := m.newest().Create(context.Background(), who, tokens)
	if err != nil {
		if !errors.As(err, new(*UnavailableError)) {
			t.Fatalf("Create: %v", err)
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions = append(m.sessions, &modelSession{
		secret: secret, family: f, created: s.Created, lastUse: s.Created, lastRequest: s.Created, token: s.AccessToken,
	})
}

func (m *model) request(t *rapid.T) {
	s := m.pick(t)
	k := m.keepers[rapid.IntRange(0, len(m.keepers)-1).Draw(t, "keeper")]
	ctx, cancel := context.Background(), func() {}
	if rapid.IntRange(0, 2).Draw(t, "hangs up") == 0 {
		after := rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "after")
		ctx, cancel = context.WithTimeout(ctx, time.Duration(after))
	}
	m.requests.Go(func() { defer cancel(); m.fresh(ctx, k, s) })
}

func (m *model) burst(t *rapid.T) {
	s := m.pick(t)
	for i := range 6 {
		k := m.keepers[i%len(m.keepers)]
		m.requests.Go(func() { m.fresh(context.Background(), k, s) })
	}
}

// fresh sends one request and checks its result.
func (m *model) fresh(ctx context.Context, k *Keeper, s *modelSession) {
	p, start := m.process, time.Now()
	m.mu.Lock()
	before := *s
	s.lastRequest = start
	m.mu.Unlock()
	got, err := k.Fresh(ctx, s.secret)
	if p.dead.Load() {
		return
	}
	now := time.Now()
	if now.Sub(start) > 2*modelTimeout {
		m.violate("a request took %v", now.Sub(start))
	}
	switch {
	case err == nil:
		if wrong := m.mayServe(before, start, got); wrong != "" {
			m.violate("%s: served %s", s.family.name, wrong)
		}
		m.mu.Lock()
		s.lastUse, s.token = laterOf(s.lastUse, start), got.AccessToken
		m.mu.Unlock()
	case errors.Is(err, ErrNoSession):
		m.mu.Lock()
		after := *s
		s.over = true
		m.mu.Unlock()
		// Only the uses before this request must have kept the session alive.
		after.lastUse = before.lastUse
		if !m.mayEnd(after, now) {
			m.violate("%s: ended without a reason: %v", s.family.name, err)
		}
	case ctx.Err() != nil:
	case errors.As(err, new(*UnavailableError)):
		m.mu.Lock()
		readable := !m.readable.IsZero() && m.readable.Before(start)
		m.mu.Unlock()
		if readable && m.good(before.token, now) {
			m.violate("%s: unavailable with a usable token: %v", s.family.name, err)
		}
	default:
		m.violate("Fresh: %v", err)
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// good reports whether an access token may be sent upstream.
func (m *model) good(token string, now time.Time) bool {
	expires, ok := m.server.expiry(token)
	return ok && now.Before(expires.Add(-maxSkew))
}

// mayServe returns the promise that serving a session breaks, or "".
func (m *model) mayServe(s modelSession, start time.Time, got *Session) string {
	switch {
	case s.loggedOut:
		return "after its logout"
	case s.over:
		return "after its end"
	case !start.Before(s.created.Add(modelMax)):
		return "after its absolute end"
	case !start.Before(s.lastRequest.Add(modelIdle + min(maxUseInterval, modelIdle/20))):
		return fmt.Sprintf("although idle since %v", s.lastRequest)
	case !m.good(got.AccessToken, time.Now()):
		return "with an expired token"
	case got.Subject != "subject-of-"+s.family.name:
		return "as " + got.Subject
	}
	return ""
}

// mayEnd reports whether the model has a reason for the end of a session.
func (m *model) mayEnd(s modelSession, now time.Time) bool {
	m.server.mu.Lock()
	refused, unclear := s.family.rejectionSeen, s.family.unclearSeen
	m.server.mu.Unlock()
	return refused || s.foreign || s.lost || s.loggingOut || s.over ||
		unclear && !m.good(s.token, now) ||
		!now.Before(s.created.Add(modelMax)) || !now.Before(s.lastUse.Add(modelIdle))
}

func (m *model) logout(t *rapid.T) {
	if rapid.Bool().Draw(t, "stay") {
		return
	}
	s := m.pick(t)
	m.mu.Lock()
	before := *s
	s.loggingOut = true
	m.mu.Unlock()
	_, err := m.newest().End(context.Background(), s.secret, EndLogout)
	m.mu.Lock()
	s.loggedOut = true
	m.mu.Unlock()
	if errors.Is(err, ErrNoSession) && !m.mayEnd(before, time.Now()) {
		m.violate("%s: ended before its logout: %v", s.family.name, err)
	}
}

// recover ends all faults. Every session that has no reason to end must go on, with its
// newest tokens in the store.
func (m *model) recover(t *rapid.T) {
	m.server.normal()
	m.server.set(func() { m.server.identify = nil })
	m.restart()
	time.Sleep(2 * time.Minute)
	for _, s := range m.sessions {
		m.server.mu.Lock()
		sound := !s.family.dead && !s.family.unclearSeen && !s.family.lost
		m.server.mu.Unlock()
		over, start := m.mayEnd(*s, time.Now()), time.Now()
		got, err := m.newest().Fresh(context.Background(), s.secret)
		switch {
		case err == nil:
			if wrong := m.mayServe(*s, start, got); wrong != "" {
				t.Errorf("%s: served %s", s.family.name, wrong)
			}
			if sound {
				m.newestIsStored(t, s)
			}
		case sound && !over:
			t.Errorf("%s: lost: %v", s.family.name, err)
		case !errors.Is(err, ErrNoSession):
			t.Errorf("%s: after all faults: %v", s.family.name, err)
		}
	}
	time.Sleep(time.Minute)
	m.check(t)
}

func (m *model) newestIsStored(t *rapid.T, s *modelSession) {
	time.Sleep(30 * time.Second)
	id := m.site.Ref(s.secret).ID
	item, there := m.store.item(id)
	rec, err := openRecord(m.site, seal.Ref{ID: id, Secret: s.secret}, item)
	if !there && m.mayEnd(*s, time.Now()) {
		return
	}
	if err != nil {
		t.Errorf("%s: %v", s.family.name, err)
		return
	}
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	if !s.family.lost && rec.refreshToken != s.family.current {
		t.Errorf("%s: stored refresh token %q, want %q", s.family.name, rec.refreshToken, s.family.current)
	}
}
