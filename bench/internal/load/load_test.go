package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestReadHead(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		status, size int
		ok           bool
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 200, 12, true},
		{"another spelling", "HTTP/1.1 200 OK\r\nServer: Caddy\r\ncontent-length:7\r\n\r\n", 200, 7, true},
		{"a refusal", "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302, 0, true},
		{"no reason", "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", 200, 1, true},
		{"no length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, -1, true},
		{"no HTTP", "SSH-2.0-x\r\n\r\n", 0, 0, false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", 0, 0, false},
		{"no status", "HTTP/1.1 \r\n\r\n", 0, 0, false},
		{"a length below 0", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, 0, false},
		{"cut", "HTTP/1.1 200 OK\r\nContent-Le", 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, size, err := readHead(bufio.NewReader(strings.NewReader(tc.answer)))
			if (err == nil) != tc.ok || tc.ok && (status != tc.status || size != tc.size) {
				t.Errorf("got %d, %d, %v", status, size, err)
			}
		})
	}
}

// site answers with as many bytes as the path says, or with a status.
func site(t *testing.T, status *atomic.Int64, seen func(*http.Request)) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen(r)
		var size int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &size); err != nil {
			size = 0
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestLoad(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, cookies := range [][]string{nil, {"a=1"}, {"a=1", "a=2", "a=3"}} {
			t.Run(fmt.Sprintf("HTTP2=%v, %d cookies", http2, len(cookies)), func(t *testing.T) {
				var status, requests, strange atomic.Int64
				status.Store(200)
				enough := make(chan struct{})
				addr := site(t, &status, func(r *http.Request) {
					if (r.ProtoMajor == 2) != http2 || r.Host != "app.test" ||
						(r.Header.Get("Cookie") == "") != (len(cookies) == 0) || r.Header.Get("Sec-Fetch-Mode") != "cors" {
						strange.Add(1)
					}
					if requests.Add(1) == 500 {
						close(enough)
					}
				})
				l, err := Start(t.Context(), Target{Addr: addr, Host: "app.test", Size: 300, HTTP2: http2, Cookies: cookies}, 20)
				if err != nil {
					t.Fatal(err)
				}
				l.Begin()
				<-enough
				l.End()
				r, err := l.Stop()
				if err != nil {
					t.Fatal(err)
				}
				if r.All != int(requests.Load()) || len(r.Took) == 0 || len(r.Took) > r.All || r.Quantile(0.5) > r.Quantile(0.99) || r.Elapsed <= 0 {
					t.Errorf("%d requests of %d were recorded in %v; the server saw %d", len(r.Took), r.All, r.Elapsed, requests.Load())
				}
				if strange.Load() != 0 {
					t.Errorf("%d requests were not as they should be", strange.Load())
				}
			})
		}
	}
}

// TestLoadFails shows that no answer but a good one counts.
func TestLoadFails(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP2=%v", http2), func(t *testing.T) {
			var status atomic.Int64
			status.Store(401)
			target := Target{Addr: site(t, &status, func(*http.Request) {}), Host: "app.test", Size: 3, HTTP2: http2, Cookies: []string{"a=1", "a=2"}}
			l, err := Start(t.Context(), target, 3)
			if err != nil {
				t.Fatal(err)
			}
			l.Begin()
			l.End()
			var refused *StatusError
			if _, err := l.Stop(); !errors.As(err, &refused) || refused.Status != 401 {
				t.Errorf("got %v", err)
			}
			if _, err := Once(t.Context(), target, 2, 0); !errors.As(err, &refused) || refused.Status != 401 {
				t.Errorf("once: got %v", err)
			}
		})
	}
}

func TestWrongSize(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "four") }))
	t.Cleanup(s.Close)
	var wrong *StatusError
	_, err := Once(t.Context(), Target{Addr: s.Listener.Addr().String(), Host: "app.test", Size: 3, Cookies: []string{""}}, 1, 0)
	if !errors.As(err, &wrong) || wrong.Size != 4 {
		t.Errorf("got %v", err)
	}
}

// TestTry asks for everything, whatever is answered.
func TestTry(t *testing.T) {
	var status, requests atomic.Int64
	status.Store(503)
	addr := site(t, &status, func(*http.Request) { requests.Add(1) })
	r, err := Try(t.Context(), Target{Addr: addr, Host: "app.test", Size: 3, Cookies: make([]string, 50)}, 0)
	if err != nil || requests.Load() != 50 || len(r.Took) != 50 || r.Quantile(0) <= 0 {
		t.Errorf("%d requests, %d of them measured: %v", requests.Load(), len(r.Took), err)
	}
}

// TestOnce sends each cookie exactly once.
func TestOnce(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	var cookies []string
	seen := make(chan string, 1000)
	for i := range 100 {
		cookies = append(cookies, fmt.Sprintf("a=%03d", i))
	}
	addr := site(t, &status, func(r *http.Request) { seen <- r.Header.Get("Cookie") })
	r, err := Once(t.Context(), Target{Addr: addr, Host: "app.test", Size: 1, Cookies: cookies}, 30, 10*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	close(seen)
	times := map[string]int{}
	for c := range seen {
		times[c]++
	}
	for _, c := range cookies {
		if times[c] != 1 {
			t.Errorf("%s was sent %d times", c, times[c])
		}
	}
	if r.All != 100 || len(r.Took) != 100 {
		t.Errorf("%d requests, %d of them measured", r.All, len(r.Took))
	}
}

func TestQuantile(t *testing.T) {
	var r Result
	for i := range 100 {
		r.Took = append(r.Took, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := r.Quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}
