package oauth

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// startTLS serves the server with TLS and HTTP/2, and returns how to reach and to
// trust it.
func startTLS(t testing.TB, h http.Handler) (*httptest.Server, *x509.CertPool) {
	hs := httptest.NewUnstartedServer(h)
	hs.EnableHTTP2 = true
	hs.StartTLS()
	t.Cleanup(hs.Close)
	roots := x509.NewCertPool()
	roots.AddCert(hs.Certificate())
	return hs, roots
}

// gate is a proxy for TCP connections. It can drop all further bytes of the open
// ones without closing them, as a firewall does that has forgotten them.
type gate struct {
	listener net.Listener
	dropping []*atomic.Bool
	conns    []net.Conn
	mu       sync.Mutex
}

func startGate(t testing.TB, target string) *gate {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: listener}
	t.Cleanup(func() {
		listener.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, c := range g.conns {
			c.Close()
		}
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				return
			}
			drop := new(atomic.Bool)
			g.mu.Lock()
			g.dropping = append(g.dropping, drop)
			g.conns = append(g.conns, client, server)
			g.mu.Unlock()
			go pass(server, client, drop)
			go pass(client, server, drop)
		}
	}()
	return g
}

func pass(to, from net.Conn, drop *atomic.Bool) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !drop.Load() {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// drop makes the connections that are open now drop everything.
func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.dropping {
		d.Store(true)
	}
}

// TestDeadConnectionIsLeft: after one request without an answer the next one uses a
// new connection, whatever it asks for.
func TestDeadConnectionIsLeft(t *testing.T) {
	for name, call := range map[string]func(context.Context, *Client) error{
		"refresh": func(ctx context.Context, c *Client) error {
			_, err := c.Refresh(ctx, testRefresh, nil)
			return err
		},
		"code": func(ctx context.Context, c *Client) error {
			_, err := c.RedeemCode(ctx, testCode, testVerifier, testRedirect)
			return err
		},
		"revocation": func(ctx context.Context, c *Client) error { return c.Revoke(ctx, testRefresh, "") },
	} {
		t.Run(name, func(t *testing.T) {
			var protocol atomic.Value
			hs, roots := startTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				protocol.Store(r.Proto)
				_, _ = w.Write([]byte(goodTokens))
			}))
			g := startGate(t, hs.Listener.Addr().String())
			url := "https://" + g.listener.Addr().String() + "/token"
			c := plainClient(t, url, func(c *Config) { c.RootCAs = roots })
			if err := call(within(t), c); err != nil || protocol.Load() != "HTTP/2.0" {
				t.Fatalf("%v, %v", protocol.Load(), err)
			}
			g.drop()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := call(ctx, c); kindOf(err) != TimedOut {
				t.Fatalf("on the dead connection: %v", err)
			}
			if err := call(within(t), c); err != nil {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

// TestTimeOutBreaksOffNoOtherRequest: requests that share a connection with one that
// gets no answer go on.
func TestTimeOutBreaksOffNoOtherRequest(t *testing.T) {
	timedOut, underWay := make(chan struct{}), make(chan struct{}, 2)
	hs, roots := startTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slow := r.FormValue("refresh_token") == testRefresh
		underWay <- struct{}{}
		if slow {
			<-r.Context().Done()
			return
		}
		<-timedOut
		_, _ = w.Write([]byte(goodTokens))
	}))
	c := plainClient(t, hs.URL, func(c *Config) { c.RootCAs = roots })
	ctx, cancel := context.WithCancelCause(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := c.Refresh(ctx, testRefresh, nil); kindOf(err) != TimedOut {
			t.Errorf("the slow one: %v", err)
		}
		close(timedOut)
	})
	<-underWay
	all.Go(func() {
		if _, err := c.Refresh(within(t), canary+"-another", nil); err != nil {
			t.Errorf("the other one: %v", err)
		}
	})
	<-underWay
	cancel(context.DeadlineExceeded)
	all.Wait()
}
