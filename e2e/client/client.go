// Package client imitates a browser for tests: navigations and fetches with a browser's headers and cookies, logins
// through forms, and raw requests.
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
	maxBody  = 16 << 20 // bytes of an answer's body
	timeout  = 3 * time.Minute
	maxTries = 5 // of a request, with Reconnect
)

// A Client is one browser profile. Its methods are safe for concurrent use.
type Client struct {
	Jar      *Jar
	User     string // for login forms
	Password string
	Header   http.Header // set on every request; replaces the browser's headers

	// Reconnect repeats a GET if its new connection breaks before the answer. Caddy opens a new socket for each
	// configuration. When it closes the old socket, Linux resets the connections that Caddy has not accepted. The client
	// gets a reset, a broken pipe or EOF.
	Reconnect bool

	http *http.Client
}

// New returns a client with an empty cookie jar. It enters user and password into login forms.
func New(user, password string) *Client {
	return &Client{
		Jar: new(Jar), User: user, Password: password,
		http: &http.Client{
			Timeout: timeout,
			// Tests must not share connections through a common transport.
			Transport:     &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Trust makes the client accept certificates of these authorities only. Call it before the first request.
func (c *Client) Trust(authorities *x509.CertPool) {
	c.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}
}

// Twin returns a client with the same cookie jar and user, but separate connections.
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

	// Via are the redirects and form pages before this answer, oldest first.
	Via []*Response
}

// Location returns the target of a redirect, or nil for another answer.
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

// Do sends the request with the cookies for its URL and the client's Header, and stores the cookies of the answer. It
// follows no redirects and adds none of the browser's headers.
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
		newConn := true // also if the handshake of a new connection fails: GotConn is then not called
		trace := &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) { newConn = !conn.Reused }}
		answer, err := c.http.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		retry := c.Reconnect && newConn && req.Method == http.MethodGet && req.Context().Err() == nil && !errors.Is(err, syscall.ECONNREFUSED)
		if err == nil || !retry || try == maxTries {
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

// Fetch sends a request with the headers of fetch() in a page of the same origin. The content type of a body is JSON.
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

// Raw sends the bytes of the request to a TCP address and reads one answer. It neither sends nor stores cookies.
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
	// http.ReadResponse needs the method to find the end of the body.
	method, _, _ := strings.Cut(request, " ")
	req := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: addr}}
	answer, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, fmt.Errorf("reading the answer to a raw request: %w", err)
	}
	defer answer.Body.Close()
	return readResponse(req, answer)
}
