package fleet

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"
)

// A Peer is another login proxy that is installed: one that keeps sessions in
// Redis, refreshes tokens, and relays the access token with each request.
type Peer struct {
	Name    string // of its subject and of its program
	Version string // that the Go toolchain has put into the program, or "of unknown version"

	exe    string
	cookie string // by which its sessions are known
	ready  string // path that is answered with 200 when it can serve
	// configure returns the command that runs it for a subject with its files in a
	// directory.
	configure func(ctx context.Context, f *Fleet, s *Subject, dir string) (*exec.Cmd, error)
}

// peers are those that can be measured, installed or not.
var peers = []Peer{oauth2Proxy}

// calm is an age that no session reaches while it is measured.
const calm = time.Hour

// FindPeers looks for peers in peers/bin of this module, and then in PATH. Missing
// are the names of those that are not there.
func FindPeers(ctx context.Context) (found []Peer, missing []string, err error) {
	module, err := moduleDir(ctx)
	if err != nil {
		return nil, nil, err
	}
	found, missing = findPeers(filepath.Join(module, "peers", "bin"))
	return found, missing, nil
}

func findPeers(dir string) (found []Peer, missing []string) {
	for _, p := range peers {
		var err error
		for _, name := range []string{filepath.Join(dir, p.Name), p.Name} {
			if p.exe, err = exec.LookPath(name); err == nil {
				break
			}
		}
		if err != nil {
			missing = append(missing, p.Name)
			continue
		}
		p.Version = "of unknown version"
		if info, err := buildinfo.ReadFile(p.exe); err == nil && info.Main.Version != "" {
			p.Version = info.Main.Version
		}
		found = append(found, p)
	}
	return found, missing
}

// addPeer adds a peer as a subject, and if there are to be storms, once more for
// those. Each has a database of Redis to itself; that of the module is 0.
func (f *Fleet) addPeer(p Peer, stormLife time.Duration) {
	add := func(to *[]*Subject, refreshAfter time.Duration) {
		*to = append(*to, &Subject{Name: p.Name, peer: &p, database: 1 + f.databases, refreshAfter: refreshAfter})
		f.databases++
	}
	add(&f.Subjects, calm)
	if stormLife > 0 {
		add(&f.hasty, stormLife)
	}
}

// runPeer starts a peer with its files in a directory.
func (f *Fleet) runPeer(ctx context.Context, s *Subject, dir string) error {
	cmd, err := s.peer.configure(ctx, f, s, dir)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	cmd.Env = append(cmd.Env, "HOME="+dir, "GOMAXPROCS=1")
	via := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	s.process, err = start(ctx, dir, s.Name, cmd, func() bool {
		resp, err := via.Get("http://127.0.0.1:" + port(s.Host) + s.peer.ready)
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // only the status counts
		return resp.StatusCode == http.StatusOK
	})
	return err
}
