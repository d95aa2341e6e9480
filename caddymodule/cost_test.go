package caddymodule

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// costSites are a site with sessions and one that only passes requests on.
const costSites = "http://localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n" +
	"http://plain.localhost:{$PORT} {\nreverse_proxy {$APP}\n}\n"

// The most that a session may cost each request, in allocations and bytes.
const (
	maxMoreAllocations = 12
	maxMoreBytes       = 2048
)

// TestSessionCostPerRequestIsBounded counts what Caddy allocates for a request with a session,
// beside one that it only passes on.
func TestSessionCostPerRequestIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, too")
	}
	w := newWorld(t)
	t.Setenv("APP", startMinimalApp(t))
	adapted, err := adapt("{\n" + strings.Replace(globals, "level DEBUG", "level ERROR", 1) + "}\n" + costSites)
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(adapted, true); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, w.origin)
	b.login("/")
	cookie := "__Host-oauth_session=" + b.cookies["__Host-oauth_session"]
	plain, session := w.newConnection("plain.localhost", cookie), w.newConnection("localhost", cookie)
	plainAllocations, plainBytes := plain.allocationsPerRequest()
	allocations, size := session.allocationsPerRequest()
	t.Logf("without a session %.1f allocations and %.0f bytes, with one %.1f and %.0f more", plainAllocations, plainBytes, allocations-plainAllocations, size-plainBytes)
	if more := allocations - plainAllocations; more > maxMoreAllocations+0.5 {
		t.Errorf("%.1f allocations more than without a session, the limit is %d", more, maxMoreAllocations)
	}
	if more := size - plainBytes; more > maxMoreBytes {
		t.Errorf("%.0f bytes more than without a session, the limit is %d", more, maxMoreBytes)
	}
}

// startMinimalApp answers every request alike, and allocates nothing for it.
func startMinimalApp(t *testing.T) (addr string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answerAll(conn)
		}
	}()
	return listener.Addr().String()
}

func answerAll(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\nok")
	for {
		text, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(text) > len("\r\n") {
			continue
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// A line sends one request over and over, and allocates nothing for it.
type connection struct {
	t       *testing.T
	conn    net.Conn
	in      *bufio.Reader
	request []byte
	body    [64]byte
}

func (w *world) newConnection(host, cookies string) *connection {
	w.t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+w.port)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	request := fmt.Appendf(nil, "GET /x HTTP/1.1\r\nHost: %s:%s\r\nAccept: */*\r\nSec-Fetch-Mode: cors\r\nCookie: %s\r\n\r\n", host, w.port, cookies)
	return &connection{t: w.t, conn: conn, in: bufio.NewReader(conn), request: request}
}

// get sends the request and demands 200.
func (c *connection) get() {
	if _, err := c.conn.Write(c.request); err != nil {
		c.t.Fatal(err)
	}
	status, length := false, 0
	for {
		text, err := c.in.ReadSlice('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		status = status || bytes.HasPrefix(text, []byte("HTTP/1.1 200 "))
		if value, ok := bytes.CutPrefix(text, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		if len(text) == len("\r\n") {
			break
		}
	}
	if _, err := io.ReadFull(c.in, c.body[:length]); err != nil || !status {
		c.t.Fatalf("not answered with 200: %v", err)
	}
}

// cost is what one request makes this process allocate.
func (c *connection) allocationsPerRequest() (allocations, size float64) {
	const n = 2000
	for range n / 4 {
		c.get() // pools and caches are filled
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		c.get()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / n, float64(after.TotalAlloc-before.TotalAlloc) / n
}
