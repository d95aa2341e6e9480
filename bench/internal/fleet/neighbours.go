package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/upstream"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Neighbours are two sites of one Caddy, at an authorization server each, with
// their sessions in one file.
type Neighbours struct {
	*Fleet
	First, Second *Subject
	issuers       [2]*fakeas.Server
	servers       [2]*http.Server
}

// StartNeighbours starts the two sites without sessions. Close ends them.
func StartNeighbours(ctx context.Context, exe string) (n *Neighbours, err error) {
	dir, err := os.MkdirTemp("", "bench-*")
	if err != nil {
		return nil, fmt.Errorf("starting: %w", err)
	}
	n = &Neighbours{
		Fleet: &Fleet{dir: dir, exe: exe, key: seal.NewKey(), prefix: rand.Text()},
		First: &Subject{Name: "first site"}, Second: &Subject{Name: "second site"},
	}
	n.atEnd(func() { _ = os.RemoveAll(dir) })
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.app, err = upstream.Listen(); err != nil {
		return nil, err
	}
	n.atEnd(func() { _ = n.app.Close() })
	config := fmt.Sprintf("{\n\tadmin unix/%s\n\tauto_https off\n\tlog {\n\t\tlevel PANIC\n\t}\n}\n", dir+"/admin.sock")
	for i, s := range []*Subject{n.First, n.Second} {
		if err := n.startIssuer(i, s); err != nil {
			return nil, err
		}
		config += fmt.Sprintf(`http://%s {
	bind 127.0.0.1
	oauth_session {
		issuer %s
		client_id %s
		client_secret {env.CLIENT_SECRET}
		key {env.SESSION_KEY}
		store bolt {
			path %s
		}
	}
	reverse_proxy %s
}
`, s.Host, n.issuers[i].URL, clientID, n.boltFile(), n.app.Addr())
	}
	n.app.Valid = func(token []byte) bool {
		for _, issuer := range n.issuers {
			if _, ok := issuer.ValidAccessToken(string(token)); ok {
				return true
			}
		}
		return false
	}
	go func() { _ = n.app.Serve() }() // a failure shows as requests that fail
	n.First.config = config
	if err := n.run(ctx, n.First); err != nil {
		return nil, err
	}
	n.atEnd(n.First.process.stop)
	return n, nil
}

func (n *Neighbours) startIssuer(i int, s *Subject) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("starting the authorization server: %w", err)
	}
	if s.Host, err = freeHost(); err != nil {
		return err
	}
	n.issuers[i] = fakeas.New(fakeas.Options{URL: "http://" + listener.Addr().String(), Clients: []fakeas.Client{{
		ID: clientID, Secret: clientSecret, RedirectURIs: []string{"http://" + s.Host + "/oauth2/callback"},
	}}})
	n.servers[i] = &http.Server{Handler: n.issuers[i], ReadHeaderTimeout: 10 * time.Second}
	n.atEnd(func() {
		n.issuers[i].Close()
		_ = n.servers[i].Close()
	})
	go func() { _ = n.servers[i].Serve(listener) }() // a failure shows as requests that fail
	n.SetIssuers(tokenLife, 0)
	return nil
}

// SetIssuers changes how long the tokens live that are issued from now on, and how
// long a request for a token takes, at both authorization servers.
func (n *Neighbours) SetIssuers(life, latency time.Duration) {
	for _, issuer := range n.issuers {
		if issuer == nil {
			continue
		}
		issuer.Set(func(k *fakeas.Knobs) {
			k.AccessTokenLifetime, k.LatencyBefore, k.SigningAlg = life, latency, "ES256"
		})
	}
}

// Outage ends the authorization server of the first site.
func (n *Neighbours) Outage() error { return n.servers[0].Close() }
