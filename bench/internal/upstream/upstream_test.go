package upstream

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestServer(t *testing.T) {
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	s.Valid = func(token []byte) bool { return string(token) == "good" }
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, tc := range []struct {
		path, authorization string
		size                int
		bearers             int64 // so far
	}{
		{"/200", "", 200, 0},
		{"/10240", "Bearer good", 10240, 1},
		{"/10240", "Bearer bad", 10240, 1},
		{"/0", "Basic good", 0, 1},
		{"/1", "Bearer good", 1, 2},
	} {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr()+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.authorization != "" {
			req.Header.Set("Authorization", tc.authorization)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if _, bearers := s.Counts(); err != nil || resp.StatusCode != 200 || len(body) != tc.size || bearers != tc.bearers {
			t.Errorf("%s with %q: status %d, %d bytes, %d good tokens, %v", tc.path, tc.authorization, resp.StatusCode, len(body), bearers, err)
		}
	}
	if requests, _ := s.Counts(); requests != 5 {
		t.Errorf("%d requests were counted", requests)
	}
}

// TestBadRequests get no answer and are not counted.
func TestBadRequests(t *testing.T) {
	for _, request := range []string{
		"POST /200 HTTP/1.1\r\n\r\n",
		"GET /x HTTP/1.1\r\n\r\n",
		"GET /-1 HTTP/1.1\r\n\r\n",
		"GET /99999999 HTTP/1.1\r\n\r\n",
		"GET /200 HTTP/1.1\r\nContent-Length: 2\r\n\r\nok",
		"GET /200 HTTP/1.1\r\nCookie: " + strings.Repeat("x", 20<<10) + "\r\n\r\n",
	} {
		ours, theirs := net.Pipe()
		s := &Server{Valid: func([]byte) bool { return true }}
		ended := make(chan error, 1)
		go func() {
			ended <- s.converse(theirs)
			theirs.Close()
		}()
		_, _ = io.WriteString(ours, request) // it may be cut off
		if err := <-ended; err == nil {
			t.Errorf("%.40q was answered", request)
		}
		if requests, _ := s.Counts(); requests != 0 {
			t.Errorf("%.40q was counted", request)
		}
		ours.Close()
	}
}
