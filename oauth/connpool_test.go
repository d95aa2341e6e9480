package oauth

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener accepts connections that exist in this process only, so that a server
// works in a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	l.conns <- server
	return client, nil
}

// TestIdleConnectionIsNotUsedWhenTheServerClosesIt: it is closed on this side first.
// The connections of three requests with pauses are counted.
func TestIdleConnectionIsNotUsedWhenTheServerClosesIt(t *testing.T) {
	for _, tc := range []struct {
		name      string
		keepAlive []string // header
		server    time.Duration
		pause     time.Duration
		conns     int32
	}{
		{"usual server, short pause", nil, 5 * time.Second, 3 * time.Second, 1},
		{"usual server, long pause", nil, 5 * time.Second, 4900 * time.Millisecond, 3},
		{"usual server, exact pause", nil, 5 * time.Second, 5 * time.Second, 3},
		{"says five seconds", []string{"timeout=5"}, 5 * time.Second, 3 * time.Second, 1},
		{"says more", []string{"timeout=72, max=100"}, 72 * time.Second, 4 * time.Second, 3},
		{"says less, short pause", []string{"timeout=2, max=100"}, 2 * time.Second, time.Second, 2},
		{"says less, long pause", []string{"timeout=2"}, 2 * time.Second, 1900 * time.Millisecond, 3},
		{"in other letters", []string{"max=5, Timeout = \"2\""}, 2 * time.Second, 1900 * time.Millisecond, 3},
		{"two lines", []string{"timeout=60", "timeout=2"}, 2 * time.Second, 1900 * time.Millisecond, 3},
		{"one second", []string{"timeout=1"}, time.Second, 900 * time.Millisecond, 3},
		{"none", []string{"timeout=0"}, time.Minute, time.Millisecond, 3},
		{"says nothing usable", []string{"timeout=-1, timeout=x, 2, timeout=99999999999"}, 5 * time.Second, 3 * time.Second, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var conns atomic.Int32
				l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
				server := &http.Server{
					IdleTimeout: tc.server,
					ConnState: func(_ net.Conn, s http.ConnState) {
						if s == http.StateNew {
							conns.Add(1)
						}
					},
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						// A server that closes the connection does not read a body that its handler left.
						_ = r.ParseForm()
						w.Header()["Keep-Alive"] = tc.keepAlive
						_, _ = w.Write([]byte(goodTokens))
					}),
				}
				go func() { _ = server.Serve(l) }() // returns ErrServerClosed at the end
				defer server.Close()
				c := plainClient(t, "http://127.0.0.1:1/token")
				pool := c.http.Transport.(*splitTransport).others
				pool.dial = l.dial
				pool.current.Store(pool.newTransport())
				for i := range 3 {
					if i > 0 {
						time.Sleep(tc.pause)
					}
					if _, err := c.RedeemCode(testContext(t), testCode, testVerifier, testRedirect); err != nil {
						t.Fatalf("request %d: got error %v", i, err)
					}
				}
				if n := conns.Load(); n != tc.conns {
					t.Errorf("got %d connections, want %d", n, tc.conns)
				}
				c.http.CloseIdleConnections()
			})
		})
	}
}
