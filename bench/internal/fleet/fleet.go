// Package fleet runs the proxies under measurement and the servers around them: an authorization
// server, Redis, and the app behind the proxies.
package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Names of subjects. PlainAgain is a second instance of Plain, which shows the noise of the machine.
// PlainHeader sets a constant header as long as that with a token: the least that passing on a token takes.
const (
	Plain       = "plain"
	PlainAgain  = "plain again"
	PlainHeader = "plain + header"
	Bolt        = "bolt"
	Redis       = "redis"
)

// RealLogins is the largest number of sessions that come from logins over HTTP. More sessions are
// written into the store before Caddy starts.
const RealLogins = 100

// A Fleet is a set of subjects with their servers.
type Fleet struct {
	Subjects []*Subject // Plain first, the peer last
	Sessions int        // of each subject with a login
	// StoreBytes is the size of the sessions in the file or in the memory of Redis, by subject.
	StoreBytes map[string]int64
	Redis      *process.Redis

	dir, exe string
	key      seal.Key
	prefix   string   // begins the access tokens of sessions that were written into a store
	ends     []func() // for Close

	app               string // host and port
	requests, bearers atomic.Int64
	issuers           []*issuer

	mu   sync.Mutex
	took []time.Duration // of token requests
}

func newFleet(exe string) *Fleet {
	dir := check.Value(os.MkdirTemp("", "bench-*"))
	f := &Fleet{dir: dir, exe: exe, key: seal.NewKey(), prefix: rand.Text(), StoreBytes: map[string]int64{}}
	f.atEnd(func() { _ = os.RemoveAll(dir) })
	f.startApp()
	return f
}

func (f *Fleet) file() string { return filepath.Join(f.dir, "sessions.db") }

// With starts a fleet, fills its stores, logs in and calls a function with the fleet. A peer, if not nil,
// takes part with up to RealLogins sessions.
func With(ctx context.Context, exe string, sessions int, peer *Peer, use func(*Fleet)) {
	f := newFleet(exe)
	defer f.Close()
	f.Redis = process.StartRedis(ctx, f.dir)
	f.atEnd(f.Redis.Stop)
	f.Sessions = sessions
	f.Subjects = []*Subject{{Name: Plain}, {Name: PlainAgain}, {Name: PlainHeader}, {Name: Bolt, store: f.file()}, {Name: Redis, store: f.Redis.URL()}}
	if peer != nil && sessions <= RealLogins {
		f.Subjects = append(f.Subjects, &Subject{Name: PeerName, peer: peer})
	}
	f.startIssuer(f.Subjects...)
	for _, s := range f.Subjects {
		f.prepare(ctx, s)
	}
	use(f)
}

// prepare starts a subject with its sessions.
func (f *Fleet) prepare(ctx context.Context, s *Subject) {
	defer check.Doing("preparing %s", s.Name)
	if s.LogsIn() && f.Sessions > RealLogins {
		f.prefill(s)
	}
	f.run(ctx, s)
	switch {
	case !s.LogsIn():
		// The requests of all subjects have the same length: an app with its own sessions has a cookie, too.
		s.Cookies = []string{"__Host-app_session_1=" + strings.Repeat("A", 43)}
	case s.Cookies == nil:
		s.Cookies = f.Login(ctx, s, f.Sessions)
	}
}

// prefill writes sessions into the store of a subject that has not started yet.
func (f *Fleet) prefill(s *Subject) {
	begun := time.Now()
	opened := stores.Open(stores.Config{Place: s.store, Key: f.key, Issuer: s.issuer.URL})
	defer opened.Close()
	empty := stores.Size(s.store)
	s.Cookies = make([]string, f.Sessions)
	load.Times(f.Sessions, stores.Callers, func(i int) { s.Cookies[i] = cookieName + "=" + opened.Login(f.prefix).Cookie() })
	f.StoreBytes[s.Name] = stores.Size(s.store) - empty
	Progress("%s: %d sessions were written in %v", s.Name, f.Sessions, time.Since(begun).Round(time.Second))
}

func (f *Fleet) atEnd(end func()) { f.ends = append(f.ends, end) }

// Close ends everything in reverse order.
func (f *Fleet) Close() {
	for ; len(f.ends) > 0; f.ends = f.ends[:len(f.ends)-1] {
		f.ends[len(f.ends)-1]()
	}
}

// Progress prints to standard error, apart from the tables.
func Progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

const (
	clientSecret = "secret-of-the-benchmark"
	cookieName   = "__Host-oauth_session" // the default
	peerCookie   = "_oauth2_proxy"
	// LongLife is the life of tokens that do not expire during a measurement.
	LongLife = 12 * time.Hour
)

// An issuer is an authorization server.
type issuer struct {
	*fakeas.Server
	http *http.Server
}

// serve starts a server on a free port. A failure of the server shows as failed requests.
func (f *Fleet) serve(handler func(addr string) http.Handler) *http.Server {
	listener := check.Value(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Addr: listener.Addr().String(), ReadHeaderTimeout: 10 * time.Second}
	f.atEnd(func() { _ = server.Close() })
	server.Handler = handler(server.Addr)
	go func() { _ = server.Serve(listener) }()
	return server
}

// body is the largest answer of the app.
var body = bytes.Repeat([]byte("x"), 64<<10)

// startApp starts an app that answers GET /N with N bytes and checks the token of each request.
func (f *Fleet) startApp() {
	f.app = f.serve(func(string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			size, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")) // the length is checked by the load
			size = min(size, len(body))
			f.requests.Add(1)
			if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found && f.valid(token) {
				f.bearers.Add(1)
			}
			w.Header()["Content-Length"] = []string{strconv.Itoa(size)}
			_, _ = w.Write(body[:size]) // an error shows as a failed request
		})
	}).Addr
}

func (f *Fleet) valid(token string) bool {
	return strings.HasPrefix(token, f.prefix) || slices.ContainsFunc(f.issuers, func(i *issuer) bool {
		_, valid := i.ValidAccessToken(token)
		return valid
	})
}

// startIssuer starts an authorization server for subjects and gives each subject its hosts.
func (f *Fleet) startIssuer(subjects ...*Subject) {
	client := fakeas.Client{ID: stores.ClientID, Secret: clientSecret}
	i := &issuer{}
	for _, s := range subjects {
		s.issuer, s.Host, s.HostH2C = i, freeHost(), freeHost()
		client.RedirectURIs = append(client.RedirectURIs, "http://"+s.Host+"/oauth2/callback")
	}
	i.http = f.serve(func(addr string) http.Handler {
		i.Server = fakeas.New(fakeas.Options{URL: "http://" + addr, Clients: []fakeas.Client{client}})
		f.atEnd(i.Server.Close)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			begun := time.Now()
			i.ServeHTTP(w, r)
			if r.Method == http.MethodPost {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.took = append(f.took, time.Since(begun))
			}
		})
	})
	f.issuers = append(f.issuers, i)
	f.SetIssuers(LongLife, 0)
}

// SetIssuers changes the life of future tokens and the latency of token requests.
func (f *Fleet) SetIssuers(life, latency time.Duration) {
	for _, i := range f.issuers {
		i.Set(func(k *fakeas.Knobs) {
			k.AccessTokenLifetime, k.LatencyBefore, k.AccessTokenSize = life, latency, stores.AccessTokenSize
			k.SigningAlg = "ES256" // RS256 would take too much of the CPU that the load shares
		})
	}
}

// TokenRequests returns the times of the token requests since the last call.
func (f *Fleet) TokenRequests() load.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := f.took
	f.took = nil
	return load.ResultOf(took, 0)
}

// Counts returns the requests at the app so far, and those with a valid token.
func (f *Fleet) Counts() (requests, bearers int64) { return f.requests.Load(), f.bearers.Load() }

// freeHost returns localhost with a free port below the range of outgoing connections, so that no
// connection occupies the port before Caddy listens.
func freeHost() string {
	for {
		host := fmt.Sprintf("localhost:%d", 10_000+mathrand.IntN(10_000))
		if listener, err := net.Listen("tcp", loopback(host)); err == nil && listener.Close() == nil {
			return host
		}
	}
}

// loopback is the address of a host of freeHost.
func loopback(host string) string { return strings.Replace(host, "localhost", "127.0.0.1", 1) }
