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

// startTLS serves a handler with TLS and HTTP/2. It also returns the roots that
// verify its certificate.
func startTLS(t testing.TB, h http.Handler) (*httptest.Server, *x509.CertPool) {
	hs := httptest.NewUnstartedServer(h)
	hs.EnableHTTP2 = true
	hs.StartTLS()
	t.Cleanup(hs.Close)
	roots := x509.NewCertPool()
	roots.AddCert(hs.Certificate())
	return hs, roots
}

// droppingProxy is a proxy for TCP connections. It can drop all further bytes of the
// open connections without closing them, as a firewall does that has lost its state.
type droppingProxy struct {
	listener net.Listener
	dropping []*atomic.Bool
	conns    []net.Conn
	mu       sync.Mutex
}

func startDroppingProxy(t testing.TB, target string) *droppingProxy {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &droppingProxy{listener: listener}
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
			go forward(server, client, drop)
			go forward(client, server, drop)
		}
	}()
	return g
}

func forward(to, from net.Conn, drop *atomic.Bool) {
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

// drop drops all further bytes of the connections that are open now.
func (g *droppingProxy) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.dropping {
		d.Store(true)
	}
}

// TestDeadConnectionIsReplaced: after a request has timed out, the next one uses a
// new connection.
func TestDeadConnectionIsReplaced(t *testing.T) {
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
			g := startDroppingProxy(t, hs.Listener.Addr().String())
			url := "https://" + g.listener.Addr().String() + "/token"
			c := plainClient(t, url, func(c *Config) { c.RootCAs = roots })
			if err := call(testContext(t), c); err != nil || protocol.Load() != "HTTP/2.0" {
				t.Fatalf("got protocol %v, error %v; want HTTP/2.0", protocol.Load(), err)
			}
			g.drop()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := call(ctx, c); kindOf(err) != TimedOut {
				t.Fatalf("over the dead connection: got error %v, want %v", err, TimedOut)
			}
			if err := call(testContext(t), c); err != nil {
				t.Errorf("over a new connection: got error %v", err)
			}
		})
	}
}

// TestTimeoutKeepsOtherRequestsOfConnection: requests that share a connection with
// one that times out continue.
func TestTimeoutKeepsOtherRequestsOfConnection(t *testing.T) {
	timedOut, running := make(chan struct{}), make(chan struct{}, 2)
	hs, roots := startTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slow := r.FormValue("refresh_token") == testRefresh
		running <- struct{}{}
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
			t.Errorf("slow refresh: got error %v, want %v", err, TimedOut)
		}
		close(timedOut)
	})
	<-running
	all.Go(func() {
		if _, err := c.Refresh(testContext(t), canary+"-another", nil); err != nil {
			t.Errorf("other refresh: got error %v", err)
		}
	})
	<-running
	cancel(context.DeadlineExceeded)
	all.Wait()
}
