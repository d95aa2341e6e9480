package security

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rawLimit bounds one raw exchange.
const rawLimit = waitLimit

// A rawAnswer is the answer to a raw request. Status is 0 if the server closed the
// connection without an answer.
type rawAnswer struct {
	Status int
	Header http.Header
	Body   []byte
	// Bytes is the head as received.
	Bytes []byte
}

// dialRaw opens a connection for HTTP/1.1 to an instance.
func (w *world) dialRaw(t testing.TB, in *instance) *tls.Conn {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: w.authority, ServerName: siteName, NextProtos: []string{"http/1.1"}}}
	conn, err := dialer.DialContext(t.Context(), "tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(rawLimit)) // fails only on a closed connection
	return conn.(*tls.Conn)
}

// raw sends bytes unchanged over HTTP/1.1 in TLS and reads one answer.
func (w *world) raw(t testing.TB, request string) *rawAnswer {
	t.Helper()
	conn := w.dialRaw(t, w.instances[0])
	defer conn.Close()
	return w.exchange(t, conn, request)
}

// rawGet sends a GET with Host and the given header lines.
func (w *world) rawGet(t testing.TB, target string, lines ...string) *rawAnswer {
	t.Helper()
	return w.raw(t, w.request("GET "+target, lines...))
}

// request returns the text of a request for the site without a body.
func (w *world) request(methodAndTarget string, lines ...string) string {
	text := methodAndTarget + " HTTP/1.1\r\nHost: " + w.host + "\r\n"
	for _, line := range lines {
		text += line + "\r\n"
	}
	return text + "Connection: close\r\n\r\n"
}

// exchange sends bytes over a connection and reads one answer.
func (w *world) exchange(t testing.TB, conn net.Conn, request string) *rawAnswer {
	t.Helper()
	// The server may answer and close before it has read the whole request.
	go func() { _, _ = io.WriteString(conn, request) }()
	var got bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &got))
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		if got.Len() > 0 {
			t.Errorf("got %q, want an HTTP answer", got.Bytes())
		}
		return &rawAnswer{}
	}
	defer resp.Body.Close()
	head := bytes.Clone(got.Bytes())
	if i := bytes.Index(head, []byte("\r\n\r\n")); i >= 0 {
		head = head[:i+4]
	}
	w.recordHead(resp)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<20)) // a truncated body is a valid result
	w.recordBytes(body)
	return &rawAnswer{Status: resp.StatusCode, Header: resp.Header, Body: body, Bytes: head}
}
