package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// http1 is a connection with one request at a time.
type http1 struct {
	net.Conn
	r       *bufio.Reader
	size    int
	request []byte
	cookie  []byte // the part of request that changes
}

func dial(ctx context.Context, t Target) (*http1, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Addr)
	if err != nil {
		return nil, fmt.Errorf("connecting to the proxy: %w", err)
	}
	c := &http1{Conn: conn, r: bufio.NewReaderSize(conn, 32<<10), size: t.Size}
	c.request = fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: %s\r\n", t.Size, t.Host)
	for _, h := range browserHeader {
		c.request = fmt.Appendf(c.request, "%s: %s\r\n", h.name, h.value)
	}
	if len(t.Cookies) > 0 && t.Cookies[0] != "" {
		c.request = append(c.request, "Cookie: "...)
		at := len(c.request)
		c.request = append(c.request, t.Cookies[0]+"\r\n\r\n"...)
		c.cookie = c.request[at : at+len(t.Cookies[0])]
	} else {
		c.request = append(c.request, "\r\n"...)
	}
	return c, nil
}

// browserHeader is what a script's fetch sends besides.
var browserHeader = []struct{ name, value string }{
	{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"},
	{"Accept", "*/*"},
	{"Accept-Language", "en-US,en;q=0.9"},
	{"Sec-Fetch-Site", "same-origin"},
	{"Sec-Fetch-Mode", "cors"},
	{"Sec-Fetch-Dest", "empty"},
}

func (c *http1) ask(cookie string) error {
	if len(cookie) != len(c.cookie) {
		return errors.New("the cookies differ in length")
	}
	copy(c.cookie, cookie)
	if err := c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := c.Write(c.request); err != nil {
		return fmt.Errorf("sending a request: %w", err)
	}
	status, size, err := readHead(c.r)
	if err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	if status != 200 || size != c.size {
		return &StatusError{Status: status, Size: size}
	}
	if _, err := c.r.Discard(size); err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	return nil
}

func (c *http1) close() { _ = c.Close() }

var errNotHTTP = errors.New("not an HTTP/1.1 answer")

// readHead reads an answer up to its body. The size is -1 if there is no
// Content-Length.
func readHead(r *bufio.Reader) (status, size int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	code, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(code) < 4 {
		return 0, 0, errNotHTTP
	}
	if status, err = strconv.Atoi(string(code[:3])); err != nil {
		return 0, 0, errNotHTTP
	}
	for size = -1; ; {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return status, size, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")) {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || size < 0 {
				return 0, 0, errNotHTTP
			}
		}
	}
}
