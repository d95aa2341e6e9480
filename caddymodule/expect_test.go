package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWaitingUploadIsAnsweredAtOnce: a client that waits for 100 Continue before it
// sends the body gets the answer without sending any of it.
func TestWaitingUploadIsAnsweredAtOnce(t *testing.T) {
	w := newWorld(t)
	w.load(site("trusted_origins https://other.test", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	cookie := ""
	for name, value := range b.cookies {
		cookie = "Cookie: " + name + "=" + value + "\r\n"
	}
	script := "Accept: */*\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"
	form := "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
	for name, tt := range map[string]struct {
		request string
		status  int
	}{
		"large upload":         {"PUT /files/a HTTP/1.1\r\n" + script + "Content-Length: 100000000\r\n", 401},
		"small upload":         {"POST /files/a HTTP/1.1\r\n" + script + "Content-Length: 5\r\n", 401},
		"chunked upload":       {"POST /files/a HTTP/1.1\r\n" + script + "Transfer-Encoding: chunked\r\n", 401},
		"form":                 {"POST /files/a HTTP/1.1\r\n" + form + "Content-Length: 5000\r\n", 401},
		"login":                {"GET /page HTTP/1.1\r\n" + form + "Content-Length: 5\r\n", 302},
		"another site's page":  {"POST /files/a HTTP/1.1\r\n" + cookie + "Sec-Fetch-Site: cross-site\r\nContent-Length: 5000\r\n", 403},
		"endpoint":             {"POST /oauth2/session/refresh HTTP/1.1\r\n" + script + "Content-Length: 5000\r\n", 401},
		"logout":               {"POST /oauth2/logout HTTP/1.1\r\n" + script + "Content-Length: 5000\r\n", 200},
		"endpoint, not there":  {"POST /oauth2/unknown HTTP/1.1\r\n" + script + "Content-Length: 5000\r\n", 404},
		"several expectations": {"POST /files/a HTTP/1.1\r\n" + script + "Content-Length: 5000\r\nExpect: 100-CONTINUE\r\n", 401},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(tt.request, "Expect") {
				tt.request += "Expect: 100-continue\r\n"
			}
			resp := sendWithoutBody(t, w.port, tt.request)
			if resp.StatusCode != tt.status || !resp.Close {
				t.Errorf("got status %d, Connection: close is %v, want %d and true", resp.StatusCode, resp.Close, tt.status)
			}
		})
	}
	t.Run("with a session", func(t *testing.T) {
		line := sendWithoutBody(t, w.port, "POST /files/a HTTP/1.1\r\n"+cookie+script+"Content-Length: 5\r\nExpect: 100-continue\r\n")
		if line.StatusCode != http.StatusContinue {
			t.Errorf("got status %d, want 100: the app reads the body", line.StatusCode)
		}
	})
	if n := len(w.app.Requests()); n > 2 { // the login's page, and the last upload
		t.Errorf("got %d requests at the app, want none without a session", n)
	}
}

// TestConnectionStaysOpenWithoutExpect: other refused requests do not close it.
func TestConnectionStaysOpenWithoutExpect(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	if resp := sendWithoutBody(t, w.port, "POST / HTTP/1.1\r\nAccept: */*\r\nContent-Length: 0\r\n"); resp.StatusCode != 401 || resp.Close {
		t.Errorf("got status %d, Connection: close is %v, want 401 and an open connection", resp.StatusCode, resp.Close)
	}
}

// sendWithoutBody sends the lines of a request, and none of its body, over HTTP/1.1.
// It returns the first answer, interim or final.
func sendWithoutBody(t *testing.T, port, lines string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	// An answer that waits for the body never comes.
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(conn, "%sHost: localhost:%s\r\n\r\n", lines, port); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("got no answer without sending the body: %v", err)
	}
	if resp.StatusCode != http.StatusContinue {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	}
	return resp
}
