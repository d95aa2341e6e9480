package fleet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/upstream"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

func TestParseHeap(t *testing.T) {
	const text = "# HELP go_memstats_mallocs_total x\n# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total 1.5e+06\n" +
		"go_memstats_alloc_bytes_total 2048\ngo_memstats_alloc_bytes 9\ngo_memstats_heap_alloc_bytes 77\n"
	got, err := parseHeap(strings.NewReader(text))
	if want := (Heap{Objects: 1.5e6, Bytes: 2048, Live: 77}); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", strings.Replace(text, "1.5e+06", "many", 1), strings.Replace(text, "alloc_bytes_total 2", "x 2", 1)} {
		if _, err := parseHeap(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if got := (Heap{5, 7, 9}).Minus(Heap{1, 2, 3}); got != (Heap{4, 5, 6}) {
		t.Errorf("the difference is %v", got)
	}
}

func TestEach(t *testing.T) {
	var seen [1000]atomic.Int64
	if err := each(len(seen), func(i int) error { seen[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("%d was done %d times", i, n)
		}
	}
	broken := errors.New("broken")
	if err := each(10, func(i int) error {
		if i == 3 {
			return broken
		}
		return nil
	}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestText(t *testing.T) {
	for _, n := range []int{0, 1, 16, 67, 1100} {
		if got := text(n); len(got) != n {
			t.Errorf("%d characters are %d", n, len(got))
		}
	}
	if text(32) == text(32) {
		t.Error("two texts are the same")
	}
}

func TestFreeHost(t *testing.T) {
	host, err := freeHost()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", strings.Replace(host, "localhost", "127.0.0.1", 1))
	if err != nil {
		t.Skip(err) // somebody was faster
	}
	listener.Close()
}

// TestCaddyfile has a login where there is one, and no secret in it.
func TestCaddyfile(t *testing.T) {
	app, err := upstream.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	f := &Fleet{app: app, issuer: fakeas.New(fakeas.Options{URL: "http://127.0.0.1:1"})}
	plain := f.caddyfile(&Subject{Name: Plain, Host: "localhost:2", HostH2C: "localhost:3"})
	bolt := f.caddyfile(&Subject{Name: Bolt, Host: "localhost:2", HostH2C: "localhost:3", store: "store bolt"})
	if strings.Contains(plain, "oauth_session") || !strings.Contains(bolt, "oauth_session {") || !strings.Contains(bolt, "store bolt") {
		t.Errorf("plain:\n%s\nbolt:\n%s", plain, bolt)
	}
	header := f.caddyfile(&Subject{Name: PlainHeader, Host: "localhost:2", HostH2C: "localhost:3"})
	if strings.Contains(header, "oauth_session") || len(header) < len(plain)+tokenSize {
		t.Errorf("with a header alone:\n%s", header)
	}
	if strings.Contains(bolt, clientSecret) {
		t.Errorf("the client secret is in\n%s", bolt)
	}
	for _, c := range []string{plain, bolt} {
		if !strings.Contains(c, "servers 127.0.0.1:3 {") || !strings.Contains(c, "reverse_proxy "+app.Addr()) {
			t.Errorf("got\n%s", c)
		}
	}
}

// TestFindPeers takes the one that make has built before the one in PATH.
func TestFindPeers(t *testing.T) {
	built, path := t.TempDir(), t.TempDir()
	t.Setenv("PATH", path)
	if found, missing := findPeers(built); len(found) != 0 || !slices.Contains(missing, "oauth2-proxy") {
		t.Errorf("nowhere: %v, missing %q", found, missing)
	}
	for _, dir := range []string{path, built} {
		exe := filepath.Join(dir, "oauth2-proxy")
		if err := os.WriteFile(exe, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		found, missing := findPeers(built)
		if len(found) != 1 || found[0].exe != exe || found[0].Name != "oauth2-proxy" || found[0].Version != "of unknown version" || len(missing) != len(peers)-1 {
			t.Errorf("%s: %v, missing %q", exe, found, missing)
		}
	}
}

// TestStormed brings storms over the instances that refresh early, and has none of
// them measured in calm.
func TestStormed(t *testing.T) {
	f := &Fleet{Subjects: []*Subject{{Name: Plain}, {Name: Bolt, store: "store bolt"}}}
	f.addPeer(Peer{Name: "one"}, 2*time.Second)
	f.addPeer(Peer{Name: "two"}, 2*time.Second)
	var got []string
	databases := map[int]bool{0: true} // the module's
	for _, s := range slices.Concat(f.Subjects, f.Stormed()) {
		got = append(got, fmt.Sprint(s.Name, s.refreshAfter))
		if s.IsPeer() && databases[s.database] {
			t.Errorf("%s shares database %d", s.Name, s.database)
		}
		databases[s.database] = true
	}
	if want := []string{"plain0s", "bolt0s", "one1h0m0s", "two1h0m0s", "bolt0s", "one2s", "two2s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	f = &Fleet{}
	if f.addPeer(Peer{Name: "one"}, 0); len(f.Subjects) != 1 || len(f.Stormed()) != 0 {
		t.Errorf("without storms there are %d subjects and %d for storms", len(f.Subjects), len(f.Stormed()))
	}
}

// TestOAuth2Proxy passes secrets in the environment, and the access token on.
func TestOAuth2Proxy(t *testing.T) {
	app, err := upstream.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	dir := t.TempDir()
	f := &Fleet{app: app, issuer: fakeas.New(fakeas.Options{URL: "http://127.0.0.1:1"}), redis: &redisServer{socket: "/r.sock"}}
	peer := oauth2Proxy
	s := &Subject{Name: peer.Name, Host: "localhost:2", admin: "/a.sock", peer: &peer, database: 3, refreshAfter: 2 * time.Second}
	cmd, err := peer.configure(t.Context(), f, s, dir)
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "alpha.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	told := string(config) + strings.Join(cmd.Args, "\n")
	for _, want := range []string{
		"BindAddress: 127.0.0.1:2\n", "BindAddress: unix:///a.sock\n", "uri: http://" + app.Addr(), "claim: access_token", "issuerURL: http://127.0.0.1:1\n",
		"--redirect-url=http://localhost:2/oauth2/callback\n", "unix:///r.sock?db=3", "--cookie-refresh=2s",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("there is no %q in\n%s", want, told)
		}
	}
	if strings.Contains(told, clientSecret) || !slices.Contains(cmd.Env, "CLIENT_SECRET="+clientSecret) {
		t.Errorf("the client secret is in\n%s\nor not in the environment", told)
	}
}

func TestProcessThatEnds(t *testing.T) {
	_, err := start(t.Context(), t.TempDir(), "short", exec.Command("sh", "-c", "echo why; exit 3"), func() bool { return false })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "why") {
		t.Errorf("got %v", err)
	}
}
