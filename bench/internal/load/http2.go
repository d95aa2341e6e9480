package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/http2"
)

// streams is how many requests share an HTTP/2 connection, about as many as a
// page has under way.
const streams = 16

// http2Stream is one of the workers of an HTTP/2 connection.
type http2Stream struct {
	transport *http2.Transport
	request   *http.Request
	size      int
	owner     bool
}

func connectHTTP2(t Target, n int) []asker {
	var askers []asker
	var shared *http2.Transport
	for i := range n {
		owner := i%streams == 0
		if owner {
			// A transport has one connection to a host while that has room.
			shared = &http2.Transport{
				AllowHTTP: true,
				DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, "tcp", t.Addr)
				},
			}
		}
		askers = append(askers, &http2Stream{transport: shared, request: newRequest(t), size: t.Size, owner: owner})
	}
	return askers
}

func newRequest(t Target) *http.Request {
	r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/%d", t.Host, t.Size), nil)
	if err != nil {
		panic(err) // of our own making
	}
	for _, h := range browserHeader {
		r.Header.Set(h.name, h.value)
	}
	r.Header.Set("Accept-Encoding", "identity") // or the transport asks for gzip
	return r
}

func (s *http2Stream) ask(cookie string) error {
	if cookie != "" {
		s.request.Header.Set("Cookie", cookie)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	answer, err := s.transport.RoundTrip(s.request.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("sending a request: %w", err)
	}
	defer answer.Body.Close()
	size, err := io.Copy(io.Discard, answer.Body)
	if err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK || int(size) != s.size {
		return &StatusError{Status: answer.StatusCode, Size: int(size)}
	}
	return nil
}

// close is called when all workers have ended.
func (s *http2Stream) close() {
	if s.owner {
		s.transport.CloseIdleConnections()
	}
}
