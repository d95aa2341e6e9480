package keeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// The model's limits are short, so that its examples reach them.
const (
	modelIdle     = 40 * time.Minute
	modelMax      = 4 * time.Hour
	modelLifetime = 5 * time.Minute
	modelTimeout  = 10 * time.Second
)

// TestKeeperKeepsItsPromises drives keeper, store and authorization server
// through drawn interleavings of requests, time, faults, logouts, reloads and
// crashes. Each example has a bubble of its own.
func TestKeeperKeepsItsPromises(t *testing.T) {
	for part := range 8 {
		t.Run(fmt.Sprint(part), rapid.MakeCheck(func(t *rapid.T) { rapid.SyncTest(t, modelExample) }))
	}
}

func modelExample(t *rapid.T) {
	m := newModel(t)
	t.Cleanup(m.crash) // an example that fails leaves no goroutine
	t.Repeat(map[string]func(*rapid.T){
		"":             m.check,
		"login":        m.login,
		"request":      m.request,
		"request more": m.request,
		"burst":        m.burst,
		"time":         m.time,
		"time to due":  func(*rapid.T) { time.Sleep(modelLifetime * 9 / 10) },
		"time to end":  func(*rapid.T) { time.Sleep(modelLifetime) },
		"store":        m.changeStore,
		"server":       m.changeServer,
		"identity":     m.changeIdentity,
		"revoke":       m.revoke,
		"logout":       m.logout,
		"reload":       m.reload,
		"crash":        func(*rapid.T) { m.crash(); m.start() },
		"restart":      func(*rapid.T) { m.restart() },
	})
	m.recover(t)
}

// model is what may be said of the world from outside.
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
	// readable: when the store last became readable; zero while it is not.
	readable time.Time
}

// modelSession is what a session's owner knows of it.
type modelSession struct {
	secret  seal.Secret
	family  *family
	created time.Time
	lastUse time.Time // the start of the last request that was served
	asked   time.Time // the start of the last request
	leaving bool      // a logout has begun
	left    bool      // and it has returned
	over    bool      // an end was told
	foreign bool      // an ID token of somebody else came
	lost    bool      // a crash took tokens that were nowhere else
	token   string    // the last one served by the living process
}

func newModel(t *rapid.T) *model {
	m := &model{store: newFakeStore(), readable: time.Now()}
	m.server = newAuthServer(m.violate)
	m.server.lifetime = modelLifetime
	m.server.latency = rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond, 4 * time.Second}).Draw(t, "latency")
	m.server.idTokens = rapid.Bool().Draw(t, "ID tokens")
	m.server.identifyDelay = rapid.SampledFrom([]time.Duration{0, 150 * time.Millisecond, 2 * time.Second}).Draw(t, "judging")
	m.server.doesNotRotate = rapid.IntRange(0, 4).Draw(t, "keeps refresh tokens") == 0
	ring, err := seal.NewKeyRing(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	m.site = seal.NewSite(ring, "issuer", "client", "cookie")
	m.start()
	m.login(t)
	return m
}

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
		secret: secret, family: f, created: s.Created, lastUse: s.Created, asked: s.Created, token: s.AccessToken,
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

// fresh is one request, and judges its result.
func (m *model) fresh(ctx context.Context, k *Keeper, s *modelSession) {
	p, start := m.process, time.Now()
	m.mu.Lock()
	before := *s
	s.asked = start
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
			m.violate("%s is served %s", s.family.name, wrong)
		}
		m.mu.Lock()
		s.lastUse, s.token = laterOf(s.lastUse, start), got.AccessToken
		m.mu.Unlock()
	case errors.Is(err, ErrNoSession):
		m.mu.Lock()
		after := *s
		s.over = true
		m.mu.Unlock()
		// What others used meanwhile does not count against it.
		after.lastUse = before.lastUse
		if !m.mayEnd(after, now) {
			m.violate("%s is over without reason: %v", s.family.name, err)
		}
	case ctx.Err() != nil:
	case errors.As(err, new(*UnavailableError)):
		m.mu.Lock()
		readable := !m.readable.IsZero() && m.readable.Before(start)
		m.mu.Unlock()
		if readable && m.good(before.token, now) {
			m.violate("%s has a good token and is told to come back: %v", s.family.name, err)
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

// good: a token may be sent upstream.
func (m *model) good(token string, now time.Time) bool {
	expires, ok := m.server.expiry(token)
	return ok && now.Before(expires.Add(-maxSkew))
}

// mayServe returns what is wrong with serving a session, or "".
func (m *model) mayServe(s modelSession, start time.Time, got *Session) string {
	switch {
	case s.left:
		return "after its logout"
	case s.over:
		return "after its end"
	case !start.Before(s.created.Add(modelMax)):
		return "after its absolute end"
	case !start.Before(s.asked.Add(modelIdle + min(maxUseInterval, modelIdle/20))):
		return fmt.Sprintf("although idle since %v", s.asked)
	case !m.good(got.AccessToken, time.Now()):
		return "with an expired token"
	case got.Subject != "subject-of-"+s.family.name:
		return "as " + got.Subject
	}
	return ""
}

// mayEnd reports whether there is a proven reason for the end of a session.
func (m *model) mayEnd(s modelSession, now time.Time) bool {
	m.server.mu.Lock()
	refused, unclear := s.family.rejectionSeen, s.family.unclearSeen
	m.server.mu.Unlock()
	return refused || s.foreign || s.lost || s.leaving || s.over ||
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
	s.leaving = true
	m.mu.Unlock()
	_, err := m.newest().End(context.Background(), s.secret, EndLogout)
	m.mu.Lock()
	s.left = true
	m.mu.Unlock()
	if errors.Is(err, ErrNoSession) && !m.mayEnd(before, time.Now()) {
		m.violate("%s was over before its logout: %v", s.family.name, err)
	}
}

// recover makes all well and looks what is left: every session that has not
// ended for a reason must go on, with the newest tokens in the store.
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
				t.Errorf("%s is served %s", s.family.name, wrong)
			}
			if sound {
				m.newestIsStored(t, s)
			}
		case sound && !over:
			t.Errorf("%s is lost: %v", s.family.name, err)
		case !errors.Is(err, ErrNoSession):
			t.Errorf("%s, when all is well: %v", s.family.name, err)
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
