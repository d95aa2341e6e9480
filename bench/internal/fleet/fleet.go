// Package fleet runs what is measured and what it needs: Caddy in several
// configurations, other login proxies, an authorization server, Redis, and the app
// behind them.
package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/upstream"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// The names of the subjects. PlainAgain is Plain a second time: how far the two
// are apart is what the machine adds by itself. PlainHeader sets a header as long
// as that with a token, the same for all: the least that passing on a token takes.
const (
	Plain       = "plain"
	PlainAgain  = "plain again"
	PlainHeader = "plain + header"
	Bolt        = "bolt"
	Redis       = "redis"
)

const (
	clientID     = "bench"
	clientSecret = "secret-of-the-benchmark"
	// tokenSize is that of common access tokens, in bytes.
	tokenSize = 1100
	tokenLife = 12 * time.Hour
)

// A Fleet is everything that runs for a number of sessions.
type Fleet struct {
	Subjects []*Subject // Plain comes first, peers last
	Sessions int        // of each subject that logs in
	// StoreBytes is what the sessions take on disk (bolt) or in the server's
	// memory (Redis), by subject.
	StoreBytes map[string]int64

	dir    string
	exe    string
	key    seal.Key
	issuer *fakeas.Server
	app    *upstream.Server
	redis  *redisServer // or nil
	// hasty are the peers once more; see Stormed.
	hasty     []*Subject
	databases int // of Redis that peers have
	// prefix begins the tokens of the sessions that were not logged in at the
	// issuer.
	prefix string
	took   issuerTimes
	ends   []func()
}

// Options say what a fleet is made of.
type Options struct {
	Exe      string // of Caddy; see Build
	Sessions int
	Redis    bool
	// Peers take part if there is Redis, and with up to RealLogins sessions: what they
	// write into a store is theirs to know.
	Peers []Peer
	// StormLife is the life of tokens whose expiry is waited for; 0: that of none.
	StormLife time.Duration
	// Progress is told what takes long.
	Progress func(what string)
}

// RealLogins is up to how many sessions come from logins of their own; more are
// written into the store before Caddy starts.
const RealLogins = 100

// Start starts a fleet, fills its stores, and logs in. Close ends it.
func Start(ctx context.Context, o Options) (f *Fleet, err error) {
	dir, err := os.MkdirTemp("", "bench-*")
	if err != nil {
		return nil, fmt.Errorf("starting: %w", err)
	}
	f = &Fleet{Sessions: o.Sessions, StoreBytes: map[string]int64{}, dir: dir, exe: o.Exe, key: seal.NewKey(), prefix: rand.Text()}
	f.atEnd(func() { _ = os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	f.Subjects = []*Subject{
		{Name: Plain}, {Name: PlainAgain}, {Name: PlainHeader},
		{Name: Bolt, store: "store bolt {\n\t\t\tpath " + f.boltFile() + "\n\t\t}"},
	}
	if o.Redis {
		if f.redis, err = startRedis(ctx, dir); err != nil {
			return nil, err
		}
		f.atEnd(f.redis.stop)
		f.Subjects = append(f.Subjects, &Subject{Name: Redis, store: "store redis " + f.redis.url()})
		if o.Sessions <= RealLogins {
			for _, p := range o.Peers {
				f.addPeer(p, o.StormLife)
			}
		}
	}
	if err := f.serve(); err != nil {
		return nil, err
	}
	for _, s := range f.Subjects {
		if err := f.prepare(ctx, s, o); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	for _, s := range f.hasty {
		if err := f.run(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		f.atEnd(s.process.stop)
	}
	return f, nil
}

// Stormed are the subjects to let tokens expire at: those that log in. A peer that
// goes by the age of a session, whatever the life of its token, is there as another
// instance than in Subjects: one that refreshes those as old as Options.StormLife.
func (f *Fleet) Stormed() []*Subject {
	var stormed []*Subject
	for _, s := range f.Subjects {
		if s.LogsIn() && !s.IsPeer() {
			stormed = append(stormed, s)
		}
	}
	return append(stormed, f.hasty...)
}

// PIDs are the processes of all subjects.
func (f *Fleet) PIDs() []int {
	var pids []int
	for _, s := range slices.Concat(f.Subjects, f.hasty) {
		pids = append(pids, s.PID())
	}
	return pids
}

// prepare starts a subject with its sessions.
func (f *Fleet) prepare(ctx context.Context, s *Subject, o Options) error {
	var prefilled []string
	if s.LogsIn() && o.Sessions > RealLogins {
		var err error
		begun := time.Now()
		if prefilled, err = f.prefill(ctx, s, o.Sessions); err != nil {
			return err
		}
		o.Progress(fmt.Sprintf("%s: %d sessions were written in %v", s.Name, o.Sessions, time.Since(begun).Round(time.Second)))
	}
	if err := f.run(ctx, s); err != nil {
		return err
	}
	f.atEnd(s.process.stop)
	if !s.LogsIn() {
		s.Cookies = []string{appCookie}
		return nil
	}
	if s.Cookies = prefilled; prefilled != nil {
		return nil
	}
	var err error
	s.Cookies, err = f.Login(ctx, s, o.Sessions)
	return err
}

// serve starts the app and the issuer in this process.
func (f *Fleet) serve() error {
	var err error
	if f.app, err = upstream.Listen(); err != nil {
		return err
	}
	f.atEnd(func() { _ = f.app.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("starting the authorization server: %w", err)
	}
	client := fakeas.Client{ID: clientID, Secret: clientSecret}
	for _, s := range slices.Concat(f.Subjects, f.hasty) {
		if s.Host, err = freeHost(); err != nil {
			return err
		}
		if s.HostH2C, err = freeHost(); err != nil {
			return err
		}
		client.RedirectURIs = append(client.RedirectURIs, "http://"+s.Host+"/oauth2/callback")
	}
	f.issuer = fakeas.New(fakeas.Options{URL: "http://" + listener.Addr().String(), Clients: []fakeas.Client{client}})
	f.issuer.Set(func(k *fakeas.Knobs) {
		k.AccessTokenLifetime, k.AccessTokenSize = tokenLife, tokenSize
		k.SigningAlg = "ES256" // RS256 would keep the CPU of the load busy
	})
	server := &http.Server{Handler: f.timed(f.issuer), ReadHeaderTimeout: 10 * time.Second}
	f.atEnd(func() {
		f.issuer.Close()
		_ = server.Close()
	})
	f.app.Valid = func(token []byte) bool {
		if len(token) == tokenSize && string(token[:len(f.prefix)]) == f.prefix {
			return true
		}
		_, ok := f.issuer.ValidAccessToken(string(token))
		return ok
	}
	go func() { _ = f.app.Serve() }()          // a failure shows as requests that fail
	go func() { _ = server.Serve(listener) }() // here too
	return nil
}

// SetIssuer changes how long the tokens live that are issued from now on, and
// how long a request for a token takes.
func (f *Fleet) SetIssuer(life, latency time.Duration) {
	f.issuer.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime, k.LatencyBefore = life, latency })
}

// Counts are the requests that the app has seen, and how many of them had a
// valid token.
func (f *Fleet) Counts() (requests, bearers int64) { return f.app.Counts() }

// RedisPID is the process of Redis; 0: there is none.
func (f *Fleet) RedisPID() int {
	if f.redis == nil {
		return 0
	}
	return f.redis.process.pid()
}

// Subject returns the subject of that name, or nil.
func (f *Fleet) Subject(name string) *Subject {
	for _, s := range f.Subjects {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (f *Fleet) atEnd(end func()) { f.ends = append(f.ends, end) }

// Close ends everything that was started, the last first.
func (f *Fleet) Close() {
	for len(f.ends) > 0 {
		last := len(f.ends) - 1
		f.ends[last]()
		f.ends = f.ends[:last]
	}
}

func (f *Fleet) boltFile() string { return filepath.Join(f.dir, "sessions.db") }

var errNoPort = errors.New("no free port of the loopback interface found")

// freeHost returns localhost with a port that nobody listens on. It is none of
// those that outgoing connections get, so that none of them is in the way when
// Caddy listens.
func freeHost() (string, error) {
	const first, last = 10_000, 20_000
	for range 1000 {
		port := first + mathrand.IntN(last-first)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return "", err
		}
		return fmt.Sprintf("localhost:%d", port), nil
	}
	return "", errNoPort
}

// HasRedis reports whether redis-server is installed.
func HasRedis() bool {
	_, err := exec.LookPath("redis-server")
	return err == nil
}
