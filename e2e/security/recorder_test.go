package security

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A recorder is the attacker's server. Neither the site nor a browser has a reason to
// connect to it: the inspection reports every connection.
type recorder struct {
	// URL is the address of the recorder. Browsers also reach it as evil.test, on every
	// port.
	URL  string
	addr string

	mu       sync.Mutex
	bytes    []byte // all requests, byte for byte
	contacts int
}

func startRecorder(t testing.TB) *recorder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: listener.Addr().String(), URL: "http://" + listener.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			running.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return r
}

// serve records one request and answers it.
func (r *recorder) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	r.mu.Lock()
	r.contacts++
	r.mu.Unlock()
	first := make([]byte, 16<<10)
	n, _ := conn.Read(first) // a connection without a request counts, too
	r.mu.Lock()
	r.bytes = append(r.bytes, first[:n]...)
	r.mu.Unlock()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil")
}

// received returns the number of connections and their bytes.
func (r *recorder) received() (contacts int, got []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contacts, append([]byte(nil), r.bytes...)
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.contacts, r.bytes = 0, nil
}

// A scanningTransport keeps everything that the site sends to browsers for the leak scan.
type scanningTransport struct {
	w    *world
	next http.RoundTripper
}

func (v *scanningTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := v.next.RoundTrip(r)
	if err != nil || !isSite(r.URL.Hostname()) {
		return resp, err
	}
	v.w.recordHead(resp)
	if resp.StatusCode != http.StatusSwitchingProtocols { // after an upgrade the body is the connection
		resp.Body = &scannedBody{ReadCloser: resp.Body, w: v.w}
	}
	return resp, nil
}

// A scannedBody records the body when it is complete: answers arrive concurrently, and
// their parts must not mix.
type scannedBody struct {
	io.ReadCloser
	w   *world
	got []byte
}

func (b *scannedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.got = append(b.got, p[:n]...)
	if err != nil {
		b.flush()
	}
	return n, err
}

func (b *scannedBody) Close() error {
	b.flush()
	return b.ReadCloser.Close()
}

func (b *scannedBody) flush() {
	b.w.recordBytes(b.got)
	b.got = nil
}
