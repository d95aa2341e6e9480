package echo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// wire is a raw connection to a server.
type wire struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, s *Server) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// The deadline keeps a broken server from hanging the test.
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &wire{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w.conn, text); err != nil {
		w.t.Fatal(err)
	}
}

// answer reads one answer and the request that it echoes.
func (w *wire) answer() (*http.Response, Request) {
	w.t.Helper()
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var req Request
	body, err := io.ReadAll(resp.Body)
	if err != nil || json.Unmarshal(body, &req) != nil {
		w.t.Fatalf("reading the answer: got error %v and body %s", err, body)
	}
	return resp, req
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func TestRequestIsEchoedAsReceived(t *testing.T) {
	s := Start(t, Options{})
	w := dial(t, s)
	for n, tt := range []struct {
		raw  string
		want Request
	}{
		{"GET /a?b=c%20d HTTP/1.1\r\nhOST: x\r\nB: 2\r\nb:1 \r\nX_y:\r\n\r\n", Request{
			Line: "GET /a?b=c%20d HTTP/1.1", Headers: [][2]string{{"hOST", "x"}, {"B", "2"}, {"b", "1"}, {"X_y", ""}}, BodySHA256: digest(""),
		}},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", Request{
			Line: "POST / HTTP/1.1", Headers: [][2]string{{"Host", "x"}, {"Content-Length", "5"}}, BodySHA256: digest("hello"), BodyLength: 5,
		}},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\nA\r\nlo, world!\r\n0\r\nAuthorization: Bearer EVIL\r\n\r\n", Request{
			Line: "POST / HTTP/1.1", Headers: [][2]string{{"Host", "x"}, {"Transfer-Encoding", "chunked"}},
			Trailers: [][2]string{{"Authorization", "Bearer EVIL"}}, BodySHA256: digest("hello, world!"), BodyLength: 13,
		}},
	} {
		tt.want.Conn = 1 // keep-alive: all requests use one connection
		w.send(tt.raw)
		resp, got := w.answer()
		if diff := cmp.Diff(tt.want, got); diff != "" || resp.StatusCode != 200 {
			t.Errorf("got status %d, want 200; request (-want +got):\n%s", resp.StatusCode, diff)
		}
		logged := s.Requests()[n]
		if len(logged.Trailers) == 0 {
			logged.Trailers = nil
		}
		if diff := cmp.Diff(tt.want, logged); diff != "" {
			t.Errorf("logged request (-want +got):\n%s", diff)
		}
	}
	w.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if resp, _ := w.answer(); resp.Header.Get("Connection") != "close" && !resp.Close {
		t.Errorf("got header %v, want Connection: close", resp.Header)
	}
	if _, err := w.in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("reading after Connection: close: got error %v, want EOF", err)
	}
	s.Reset()
	if n := len(s.Requests()); n != 0 {
		t.Errorf("after Reset: got %d requests, want none", n)
	}
}

func TestMalformedRequestIsRefused(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: x\r\n"
	tests := []struct{ name, raw string }{
		{"bare line feed", "GET / HTTP/1.1\nHost: x\r\n\r\n"},
		{"space before colon", "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n"},
		{"folded line", "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"},
		{"NUL", "GET / HTTP/1.1\r\nHost: x\r\nA: b\x00\r\n\r\n"},
		{"carriage return in a value", "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n"},
		{"no Host", "GET / HTTP/1.1\r\n\r\n"},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"HTTP/2", "PRI * HTTP/2.0\r\nHost: x\r\n\r\n"},
		{"length and chunked", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"two lengths", post + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"},
		{"list of lengths", post + "Content-Length: 5, 5\r\n\r\nhello"},
		{"signed length", post + "Content-Length: +5\r\n\r\nhello"},
		{"empty length", post + "Content-Length:\r\n\r\n"},
		{"xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		{"chunked HTTP/1.0", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"chunk extension", post + "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n"},
		{"bare line feed after chunk size", post + "Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n"},
		{"chunk too long", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n"},
		{"endless header", "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", maxHead) + "\r\n\r\n"},
	}
	s := Start(t, Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.Reset()
			w := dial(t, s)
			w.send(tt.raw)
			resp, got := w.answer()
			if resp.StatusCode != 400 || got.Malformed == "" || !resp.Close {
				t.Errorf("got %d %+v, want 400, a reason and a closed connection", resp.StatusCode, got)
			}
			if log := s.Requests(); len(log) != 1 || log[0].Malformed == "" {
				t.Errorf("got log %+v, want one malformed request", log)
			}
		})
	}
}

func TestExpectContinueIsAnsweredBeforeTheBody(t *testing.T) {
	w := dial(t, Start(t, Options{}))
	w.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
		if line, err := w.in.ReadString('\n'); line != want {
			t.Fatalf("got %q and error %v, want %q", line, err, want)
		}
	}
	w.send("ok")
	if _, got := w.answer(); got.BodySHA256 != digest("ok") {
		t.Errorf("got %+v, want the digest of the body", got)
	}
}

func TestCheckRefusesRequestsWithoutOneGoodToken(t *testing.T) {
	s := Start(t, Options{Check: func(token string) bool { return token == "good" }})
	for _, tt := range []struct {
		headers string
		want    int
	}{
		{"Authorization: Bearer good\r\n", 200},
		{"authorization: Bearer good\r\n", 200},
		{"Authorization: Bearer bad\r\n", 401},
		{"Authorization: Bearer good\r\nAuthorization: Bearer good\r\n", 401},
		{"Authorization: Basic good\r\n", 401},
		{"", 401},
	} {
		w := dial(t, s)
		w.send("GET /u/public-cache HTTP/1.1\r\nHost: x\r\n" + tt.headers + "\r\n")
		resp, _ := w.answer()
		if resp.StatusCode != tt.want || tt.want == 401 && resp.Header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
			t.Errorf("%q: got %d %v, want %d", tt.headers, resp.StatusCode, resp.Header, tt.want)
		}
	}
	if s.Rejected() != 4 {
		t.Errorf("got %d rejected requests, want 4", s.Rejected())
	}
}

func TestSpecialPathsAnswerAsDocumented(t *testing.T) {
	w := dial(t, Start(t, Options{}))
	for _, tt := range []struct {
		target string
		status int
		header string
		want   []string
	}{
		{"/u/401", 401, "WWW-Authenticate", []string{`Bearer error="invalid_token"`}},
		{"/u/setcookie?name=__Host-x", 200, "Set-Cookie", []string{"app=1; Path=/", "__Host-x=planted; Path=/; Secure"}},
		{"/u/public-cache", 200, "Cache-Control", []string{"public, max-age=3600"}},
		{"/u/slow?d=1ms", 200, "Content-Type", []string{"application/json"}},
		{"/u/slow?d=never", 400, "Content-Type", []string{"application/json"}},
	} {
		w.send("GET " + tt.target + " HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, _ := w.answer()
		if diff := cmp.Diff(tt.want, resp.Header.Values(tt.header)); resp.StatusCode != tt.status || diff != "" {
			t.Errorf("%s: got status %d, want %d; %s (-want +got):\n%s", tt.target, resp.StatusCode, tt.status, tt.header, diff)
		}
	}
	for target, want := range map[string]bool{"/admin/x": true, "/other": false} {
		w.send("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(w.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || strings.Contains(string(body), "SECRET-PAGE") != want {
			t.Errorf("%s: got %s and error %v, want SECRET-PAGE in it: %t", target, body, err, want)
		}
	}
	w.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(w.in, &http.Request{Method: http.MethodHead})
	if err != nil || resp.ContentLength == 0 {
		t.Fatalf("HEAD: got %v and error %v, want a Content-Length", resp, err)
	}
	w.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	w.answer() // fails if the answer to HEAD has a body
}

// masked returns a frame as clients send it, masked.
func masked(first byte, payload string) string {
	b := frame(first, []byte(payload))
	head := len(b) - len(payload)
	mask := "\x01\x02\x03\x04"
	out := append([]byte{b[0], b[1] | 0x80}, b[2:head]...)
	out = append(out, mask...)
	for i := range len(payload) {
		out = append(out, payload[i]^mask[i%4])
	}
	return string(out)
}

func TestWebSocketEchoesFrames(t *testing.T) {
	s := Start(t, Options{})
	w := dial(t, s)
	// The key and its answer are from RFC 6455, section 1.3.
	w.send("GET /u/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("handshake: got %v and error %v, want 101 and the accept value of the RFC", resp, err)
	}
	if err := s.WaitStreams(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	long, huge := strings.Repeat("l", 300), strings.Repeat("h", 70_000)
	for _, tt := range []struct{ send, want string }{
		{masked(0x81, "hello"), string(frame(0x81, []byte("hello")))},
		{masked(0x82, long), string(frame(0x82, []byte(long)))},
		{masked(0x82, huge), string(frame(0x82, []byte(huge)))},
		{masked(0x89, "p"), string(frame(0x8A, []byte("p")))},                                   // ping, pong
		{masked(0x8A, "q") + masked(0x81, ""), string(frame(0x81, nil))},                        // an unsolicited pong is ignored
		{masked(0x01, "a") + masked(0x80, "b"), string(frame(0x01, []byte("a"))) + "\x80\x01b"}, // fragments
		{masked(0x88, "\x03\xe8"), string(frame(0x88, []byte("\x03\xe8")))},                     // close
	} {
		w.send(tt.send)
		got := make([]byte, len(tt.want))
		if _, err := io.ReadFull(w.in, got); err != nil || string(got) != tt.want {
			t.Fatalf("got %.20q and error %v, want %.20q", got, err, tt.want)
		}
	}
	if _, err := w.in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("reading after the close frame: got error %v, want EOF", err)
	}
	if err := s.WaitStreams(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	w = dial(t, s)
	w.send("GET /u/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n")
	if resp, _ := w.answer(); resp.StatusCode != 400 {
		t.Errorf("handshake without Upgrade: got status %d, want 400", resp.StatusCode)
	}
}

func TestEventStreamSendsEventsUntilTheClientLeaves(t *testing.T) {
	s := Start(t, Options{})
	w := dial(t, s)
	w.send("GET /u/sse HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %v and error %v, want an event stream", resp, err)
	}
	const want = "id: 1\ndata: tick\n\nid: 2\ndata: tick\n\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
		t.Errorf("got %q and error %v, want %q", got, err, want)
	}
	if n := s.Streams(); n != 1 {
		t.Errorf("got %d streams, want 1", n)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WaitStreams(canceled, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitStreams with a canceled context: got error %v, want context.Canceled", err)
	}
	w.conn.Close()
	if err := s.WaitStreams(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// TestCloseEndsOpenStreams hangs if open streams keep the server from closing.
func TestCloseEndsOpenStreams(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		s := Start(t, Options{})
		for _, target := range []string{"/u/sse", "/u/slow?d=50s"} {
			dial(t, s).send("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if err := s.WaitStreams(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	f.Add("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n")
	f.Add("POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
	f.Add("0 * HTTP/1.1\r\nHost:\r\nTrAnsfer-EnCoding:chunked\r\n\r\n0\r\n0:\x01\r\n\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		in := &reader{Reader: bufio.NewReader(strings.NewReader(raw))}
		req, err := in.head()
		if err == nil {
			err = in.body(&req)
		}
		if err != nil {
			return
		}
		// net/http must read an accepted request in the same way.
		std, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return // net/http is stricter about some targets and values
		}
		body, err := io.ReadAll(std.Body)
		if err != nil && strings.Contains(err.Error(), "malformed MIME header") {
			err = nil // net/http is stricter about trailers, too
		}
		if err != nil || int64(len(body)) != req.BodyLength || digest(string(body)) != req.BodySHA256 {
			t.Errorf("got a body of %d bytes; net/http reads %d bytes and error %v", req.BodyLength, len(body), err)
		}
	})
}
