package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
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

// connect makes n clients: one for each HTTP/1.1 connection or HTTP/2 stream.
func connect(ctx context.Context, t Target, n int) ([]*client, error) {
	var clients []*client
	for i := range n {
		c, err := newClient(t)
		if err == nil && !t.HTTP2 {
			err = c.dial(ctx, t.Addr)
		}
		if err != nil {
			closeAll(clients)
			return nil, err
		}
		switch {
		case t.HTTP2 && i%streams == 0:
			shared := newHTTP2(t.Addr)
			c.RoundTripper, c.close = shared, shared.CloseIdleConnections
		case t.HTTP2:
			c.RoundTripper, c.close = clients[i-1].RoundTripper, func() {}
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func closeAll(clients []*client) {
	for _, c := range clients {
		c.close()
	}
}

// newClient prepares the request of a script's fetch in a browser.
func newClient(t Target) (*client, error) {
	r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/%d", t.Host, t.Size), nil)
	if err != nil {
		return nil, fmt.Errorf("preparing a request: %w", err)
	}
	r.Header = http.Header{
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"},
		"Accept":          {"*/*"},
		"Accept-Language": {"en-US,en;q=0.9"},
		"Sec-Fetch-Site":  {"same-origin"},
		"Sec-Fetch-Mode":  {"cors"},
		"Sec-Fetch-Dest":  {"empty"},
	}
	return &client{request: r, size: t.Size}, nil
}

// get sends the request with a cookie. Any answer but 200 with the right length is a StatusError.
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
	if err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK || int(size) != c.size {
		return &StatusError{Status: resp.StatusCode, Size: int(size)}
	}
	return nil
}

// http1 is a connection without the goroutines of http.Transport: the load shares its CPU with the
// app and the authorization server.
type http1 struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func (c *client) dial(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("connecting to the proxy: %w", err)
	}
	c.RoundTripper = &http1{conn, bufio.NewReaderSize(conn, 32<<10), bufio.NewWriter(conn)}
	c.close = func() { _ = conn.Close() }
	return nil
}

// RoundTrip implements [http.RoundTripper] for requests with a deadline and without a body.
func (c *http1) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline, _ := r.Context().Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := r.Write(c.w); err != nil {
		return nil, err
	}
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	return http.ReadResponse(c.r, r)
}

// newHTTP2 has one connection.
func newHTTP2(addr string) *http.Transport {
	t := &http.Transport{
		DisableCompression: true, MaxConnsPerHost: 1, Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// A StatusError is an answer with a wrong status or length.
type StatusError struct {
	Status int
	Size   int // in bytes
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("a request was answered with status %d and %d bytes", e.Status, e.Size)
}
