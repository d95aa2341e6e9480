package fakeas

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// Start runs a server on a free loopback port until the test ends. It sets
// opts.URL.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts.URL = "http://" + listener.Addr().String()
	s := New(opts)
	done := make(chan struct{})
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(done)
		_ = server.Serve(listener) // returns ErrServerClosed at the end
	}()
	t.Cleanup(func() {
		s.Close()
		_ = server.Close()
		<-done
	})
	return s
}
