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

// costSites are a site with sessions and a plain reverse proxy.
const costSites = "http://localhost:{$PORT} {\noauth_session {\n" + loginOptions + "\n}\nreverse_proxy {$APP}\n}\n" +
	"http://plain.localhost:{$PORT} {\nreverse_proxy {$APP}\n}\n"

// Limits for the additional cost of a session per request.
const (
	maxMoreAllocations = 12
	maxMoreBytes       = 2048
)

// The test compares the allocations of a request with a session to those of a plain
// reverse proxy.
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
	t.Logf("without a session %.1f allocations and %.0f bytes; a session adds %.1f and %.0f", plainAllocations, plainBytes, allocations-plainAllocations, size-plainBytes)
	if more := allocations - plainAllocations; more > maxMoreAllocations+0.5 {
		t.Errorf("got %.1f additional allocations, want at most %d", more, maxMoreAllocations)
	}
	if more := size - plainBytes; more > maxMoreBytes {
		t.Errorf("got %.0f additional bytes, want at most %d", more, maxMoreBytes)
	}
}

// startMinimalApp starts an app that answers each request without allocating.
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

// A connection repeats one request without allocating.
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

// get sends the request and expects 200.
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
		c.t.Fatalf("got error %v or another status, want 200", err)
	}
}

// allocationsPerRequest returns the mean allocations and bytes of this process for a request.
func (c *connection) allocationsPerRequest() (allocations, size float64) {
	const n = 2000
	for range n / 4 {
		c.get() // fills pools and caches
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		c.get()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / n, float64(after.TotalAlloc-before.TotalAlloc) / n
}
