package client

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// resettingListener resets its first connections.
type resettingListener struct {
	net.Listener
	resets atomic.Int32 // connections still to reset
}

func (r *resettingListener) Accept() (net.Conn, error) {
	for {
		conn, err := r.Listener.Accept()
		if err != nil || r.resets.Add(-1) < 0 {
			return conn, err
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // Close then sends RST
		conn.Close()
	}
}

func TestReconnectRepeatsBrokenConnections(t *testing.T) {
	for _, tls := range []bool{false, true} {
		for _, tc := range []struct {
			name      string
			reconnect bool
			resets    int32
			ok        bool
		}{{"no reset", false, 0, true}, {"without Reconnect", false, 1, false}, {"some resets", true, maxTries - 1, true}, {"only resets", true, maxTries, false}} {
			name := "HTTP, " + tc.name
			if tls {
				name = "HTTPS, " + tc.name
			}
			t.Run(name, func(t *testing.T) {
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				listener := &resettingListener{Listener: server.Listener}
				listener.resets.Store(tc.resets)
				server.Listener = listener
				c := New("", "")
				c.Reconnect = tc.reconnect
				if tls {
					server.StartTLS()
					authorities := x509.NewCertPool()
					authorities.AddCert(server.Certificate())
					c.Trust(authorities)
				} else {
					server.Start()
				}
				defer server.Close()
				if _, err := c.Fetch(t.Context(), http.MethodGet, server.URL, ""); (err == nil) != tc.ok {
					t.Errorf("got error %v, want success: %t", err, tc.ok)
				}
			})
		}
	}
}
