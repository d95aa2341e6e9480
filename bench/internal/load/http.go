package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

// A Target is a site that answers GET /N with N bytes.
type Target struct {
	Addr    string   // host and port to connect to
	Host    string   // of the request
	Size    int      // of the answer in bytes
	HTTP2   bool     // over cleartext; otherwise HTTP/1.1
	Cookies []string // Cookie headers, one for each request; an empty one is not sent
}

const (
	answerTimeout = 30 * time.Second
	// streams is the number of requests that share an HTTP/2 connection, about as many as a page
	// sends at a time.
	streams = 16
)

// A client sends one request at a time.
type client struct {
	http.RoundTripper
	request *http.Request
	size    int
	close   func()
}

// connect makes n clients: one for each HTTP/1.1 connection or HTTP/2 stream. Their request is that of a
// script's fetch in a browser.
func connect(ctx context.Context, t Target, n int) (clients []*client) {
	defer check.Doing("connecting to the proxy")
	dialer := &net.Dialer{}
	for i := range n {
		request := check.Value(http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/%d", t.Host, t.Size), nil))
		request.Header = http.Header{
			"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"},
			"Accept":          {"*/*"},
			"Accept-Language": {"en-US,en;q=0.9"},
			"Sec-Fetch-Site":  {"same-origin"},
			"Sec-Fetch-Mode":  {"cors"},
			"Sec-Fetch-Dest":  {"empty"},
		}
		c := &client{request: request, size: t.Size, close: func() {}}
		switch {
		case !t.HTTP2:
			conn := check.Value(dialer.DialContext(ctx, "tcp", t.Addr))
			c.RoundTripper = &http1{conn, bufio.NewReaderSize(conn, 32<<10), bufio.NewWriter(conn)}
			c.close = func() { _ = conn.Close() }
		case i%streams == 0:
			shared := &http.Transport{
				DisableCompression: true, MaxConnsPerHost: 1, Protocols: new(http.Protocols),
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, "tcp", t.Addr)
				},
			}
			shared.Protocols.SetUnencryptedHTTP2(true)
			c.RoundTripper, c.close = shared, shared.CloseIdleConnections
		default:
			c.RoundTripper = clients[i-1].RoundTripper
		}
		clients = append(clients, c)
	}
	return clients
}

func closeAll(clients []*client) {
	for _, c := range clients {
		c.close()
	}
}

// get sends the request with a cookie. It returns an error unless the answer is 200 with the right length.
func (c *client) get(cookie string) error {
	if cookie != "" {
		c.request.Header["Cookie"] = []string{cookie}
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	resp, err := c.RoundTrip(c.request.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("sending a request: %w", err)
	}
	defer resp.Body.Close()
	size, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || int(size) != c.size) {
		err = fmt.Errorf("got status %d and %d bytes, want 200 and %d", resp.StatusCode, size, c.size)
	}
	return err
}

// http1 is a connection without the goroutines of http.Transport: the load shares its CPU with the
// app and the authorization server.
type http1 struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

// RoundTrip implements [http.RoundTripper] for requests with a deadline and without a body.
func (c *http1) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline, _ := r.Context().Deadline()
	if err := errors.Join(c.conn.SetDeadline(deadline), r.Write(c.w), c.w.Flush()); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, r)
}
