// Package client is the browser of the tests that need no real one: navigations and fetches with a browser's headers and
// cookies, a login through forms, and raw requests.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	maxBody = 16 << 20 // bytes read of an answer
	timeout = 3 * time.Minute
	// maxTries bounds what Reconnect repeats.
	maxTries = 5
)

// A Client is one browser profile. Its methods may be used by many goroutines at once.
type Client struct {
	Jar      *Jar
	User     string // for login forms
	Password string
	Header   http.Header // added to every request, in place of the browser's own of that name

	// Reconnect repeats a GET whose new connection broke before an answer came. Caddy opens a new socket for each
	// configuration, and Linux resets the connections that nobody has taken from the old one yet, whatever Caddy serves.
	// Depending on the moment that reads as a reset, a broken pipe or an end.
	Reconnect bool

	http *http.Client
}

// New returns a client with an empty cookie jar. User and password go into login forms.
func New(user, password string) *Client {
	return &Client{
		Jar: new(Jar), User: user, Password: password,
		http: &http.Client{
			Timeout: timeout,
			// A transport of its own keeps one test's connections out of another's.
			Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Trust makes the client accept certificates of these authorities and of no others. It must be called before the first
// request.
func (c *Client) Trust(authorities *x509.CertPool) {
	c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}
}

// Twin returns a client with the same cookies and user, and connections of its own.
func (c *Client) Twin() *Client {
	twin := New(c.User, c.Password)
	twin.Jar, twin.Reconnect = c.Jar, c.Reconnect
	return twin
}

// A Response is an answer with its whole body.
type Response struct {
	URL    *url.URL
	Method string
	Status int
	Header http.Header
	Body   []byte

	// Via holds the redirects and forms on the way here, oldest first.
	Via []*Response
}

// Location returns where a redirect leads, or nil when the answer is none.
func (r *Response) Location() *url.URL {
	if r.Status < 300 || r.Status > 399 || r.Header.Get("Location") == "" {
		return nil
	}
	u, err := r.URL.Parse(r.Header.Get("Location"))
	if err != nil {
		return nil
	}
	return u
}

func (r *Response) String() string {
	return fmt.Sprintf("%s %s: %d %s", r.Method, r.URL.Redacted(), r.Status, bytes.TrimSpace(r.Body[:min(len(r.Body), 2000)]))
}

// Do sends the request with the cookies for its URL and the client's Header, and keeps the cookies that come back. It
// follows no redirect and adds no header of a browser.
func (c *Client) Do(req *http.Request) (*Response, error) { return c.send(req, sameSite) }

func (c *Client) send(req *http.Request, from initiator) (*Response, error) {
	for _, cookie := range c.Jar.cookiesFor(req.URL, from) {
		req.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value, Quoted: cookie.Quoted})
	}
	for name, values := range c.Header {
		req.Header[name] = values
	}
	answer, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	c.Jar.Update(req.URL, answer.Header.Values("Set-Cookie"))
	return readResponse(req, answer)
}

func (c *Client) do(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		fresh := true // until the transport has a connection: the handshake of a new one may fail, too
		trace := &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) { fresh = !conn.Reused }}
		answer, err := c.http.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		again := c.Reconnect && fresh && req.Method == http.MethodGet && req.Context().Err() == nil && !errors.Is(err, syscall.ECONNREFUSED)
		if err == nil || !again || try == maxTries {
			return answer, err
		}
	}
}

func readResponse(req *http.Request, answer *http.Response) (*Response, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body of %s: %w", req.URL.Redacted(), err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("the body of %s is larger than %d bytes", req.URL.Redacted(), maxBody)
	}
	return &Response{URL: req.URL, Method: req.Method, Status: answer.StatusCode, Header: answer.Header, Body: body}, nil
}

// Fetch sends what fetch() sends from a page of the same origin. A body is sent as JSON.
func (c *Client) Fetch(ctx context.Context, method, rawURL, body string) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, rawURL, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "*/*")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Sec-Fetch-Mode", "cors")
	req.Header.Set("Sec-Fetch-Dest", "empty")
	if method != http.MethodGet && method != http.MethodHead {
		req.Header.Set("Origin", origin(req.URL))
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.send(req, sameSite)
}

// Raw sends the request byte for byte to a TCP address and reads one answer. It knows no cookies.
func Raw(ctx context.Context, addr, request string) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, fmt.Errorf("sending a raw request: %w", err)
	}
	// The first word is the method, on which the length of the answer's body depends.
	method, _, _ := strings.Cut(request, " ")
	req := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: addr}}
	answer, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to a raw request: %w", err)
	}
	defer answer.Body.Close()
	return readResponse(req, answer)
}
