package fleet

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
)

// A Subject is a running proxy under measurement: Caddy or a peer.
type Subject struct {
	Name    string
	Host    string   // of the site over HTTP/1.1, with its port on the loopback interface
	HostH2C string   // of the same site over HTTP/2; not for peers
	Cookies []string // Cookie headers of its sessions, or of the app for a subject without a login
	Started time.Duration

	*process.Process
	issuer *issuer
	admin  string // socket of the admin endpoint
	store  string // path of a file or URL of Redis; "": no login
	config string // Caddyfile; "": the usual one

	peer *Peer // nil: Caddy
}

// LogsIn reports whether the subject has sessions.
func (s *Subject) LogsIn() bool { return s.store != "" || s.IsPeer() }

// IsPeer reports whether the subject is another login proxy.
func (s *Subject) IsPeer() bool { return s.peer != nil }

// Target is the site of the subject for a load.
func (s *Subject) Target(size int, http2 bool) load.Target {
	t := load.Target{Host: s.Host, Size: size, Cookies: s.Cookies, HTTP2: http2}
	if http2 {
		t.Host = s.HostH2C
	}
	t.Addr = loopback(t.Host)
	return t
}

// run starts a subject and waits until it serves.
func (f *Fleet) run(ctx context.Context, s *Subject) {
	dir := filepath.Join(f.dir, strings.ReplaceAll(s.Name, " ", "-"))
	check.OK(os.MkdirAll(dir, 0o700))
	s.admin = filepath.Join(dir, "admin.sock")
	file, config, path := filepath.Join(dir, "config"), s.config, "/0"
	cmd := exec.CommandContext(ctx, f.exe, "run", "--config", file, "--adapter", "caddyfile")
	switch {
	case s.IsPeer():
		config, cmd, path = f.peerConfig(s), f.peerCommand(ctx, s, file), "/ready"
	case config == "":
		config = f.caddyfile(s.admin, s)
	}
	check.OK(os.WriteFile(file, []byte(config), 0o600))
	cmd.Env = append(os.Environ(), append(cmd.Env, "CLIENT_SECRET="+clientSecret, "SESSION_KEY="+f.key.Encode(),
		"XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir, "GOMAXPROCS=1")...)
	via := &http.Client{
		Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	begun := time.Now()
	s.Process = process.Start(ctx, dir, cmd, func() bool {
		resp, err := via.Get("http://" + loopback(s.Host) + path)
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // the status is enough
		return resp.StatusCode == http.StatusOK || !s.IsPeer()
	})
	s.Started = time.Since(begun)
	f.atEnd(s.Stop)
}

// Login logs n browsers in and returns their Cookie headers.
func (f *Fleet) Login(ctx context.Context, s *Subject, n int) []string {
	defer check.Doing("logging in")
	const concurrent = 16
	shared := &http.Transport{MaxIdleConnsPerHost: concurrent, DisableCompression: true}
	defer shared.CloseIdleConnections()
	name := cookieName
	if s.IsPeer() {
		name = peerCookie
	}
	cookies := make([]string, n)
	load.Times(n, concurrent, func(i int) {
		browser := client.New("", "") // the authorization server asks for no password
		browser.Through(shared, s.Host, func() string { return loopback(s.Host) })
		page := check.Value(browser.Login(ctx, "http://"+s.Host+"/200"))
		cookie := browser.Jar.Cookie(&url.URL{Scheme: "http", Host: s.Host, Path: "/"}, name)
		if page.Status != http.StatusOK || cookie == nil {
			check.Failf("got %v, want the app with a session", page)
		}
		cookies[i] = cookie.Name + "=" + cookie.Value
	})
	return cookies
}

// A Heap holds the allocations of a process since its start.
type Heap struct {
	Objects, Bytes float64
	Live           float64 // bytes in use, with garbage that is not collected yet
}

// Heap reads the allocations from the admin endpoint, if asked for after a garbage collection.
func (s *Subject) Heap(ctx context.Context, collect bool) Heap {
	if collect {
		s.ask(ctx, "/debug/pprof/heap?gc=1")
	}
	text := s.ask(ctx, "/metrics")
	number := func(name string) float64 { return machine.Field(text, "go_memstats_"+name+" ") }
	h := Heap{Objects: number("mallocs_total"), Bytes: number("alloc_bytes_total"), Live: number("heap_alloc_bytes")}
	if h.Objects == 0 {
		check.Failf("reading the heap of %s: got no allocations in its metrics", s.Name)
	}
	return h
}

// ask reads from the admin endpoint.
func (s *Subject) ask(ctx context.Context, path string) string {
	defer check.Doing("reading %s from the admin endpoint of %s", path, s.Name)
	via := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.admin)
		},
	}}
	resp, err := via.Do(check.Value(http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1"+path, nil)))
	check.OK(err)
	defer resp.Body.Close()
	text := check.Value(io.ReadAll(resp.Body))
	if resp.StatusCode != http.StatusOK {
		check.Failf("got status %d", resp.StatusCode)
	}
	return string(text)
}
