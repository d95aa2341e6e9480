package load

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

// site answers with the number of bytes in the path and with a status.
func site(t *testing.T, status int, observe func(*http.Request)) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		observe(r)
		var size int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &size); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestLoadCountsEveryAnswer(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, cookies := range [][]string{{""}, {"a=1"}, {"a=1", "a=2", "a=3"}} {
			t.Run(fmt.Sprintf("HTTP2=%v, %d cookies", http2, len(cookies)), func(t *testing.T) {
				var requests atomic.Int64
				addr := site(t, 200, func(r *http.Request) {
					requests.Add(1)
					if (r.ProtoMajor == 2) != http2 || r.Host != "app.test" ||
						(r.Header.Get("Cookie") == "") != (cookies[0] == "") || r.Header.Get("Sec-Fetch-Mode") != "cors" {
						t.Errorf("got a request by %s to %s with headers %v", r.Proto, r.Host, r.Header)
					}
				})
				target := Target{Addr: addr, Host: "app.test", Size: 300, HTTP2: http2, Cookies: cookies}
				r := During(t.Context(), target, 20, func(record func(time.Duration)) { record(100 * time.Millisecond) })
				if r.Calls != int(requests.Load()) || len(r.Took) == 0 || len(r.Took) > r.Calls || r.Elapsed <= 0 {
					t.Errorf("got %d answers, %d recorded in %v; want %d answers", r.Calls, len(r.Took), r.Elapsed, requests.Load())
				}
			})
		}
	}
}

func TestWrongAnswersEndALoad(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		target := Target{Addr: site(t, 401, func(*http.Request) {}), Host: "app.test", Size: 3, HTTP2: http2, Cookies: []string{"a=1", "a=2"}}
		for name, send := range map[string]func(){
			"during": func() { During(t.Context(), target, 3, func(record func(time.Duration)) { record(time.Second) }) },
			"once":   func() { Once(t.Context(), target, 2, 0, false) },
		} {
			if err := check.Run(send); err == nil || !strings.Contains(err.Error(), "got status 401 and 3 bytes") {
				t.Errorf("HTTP2=%v, %s: got error %v, want status 401", http2, name, err)
			}
		}
	}
}

func TestTolerantOnceSendsEachCookieOnce(t *testing.T) {
	var cookies, got []string
	for i := range 100 {
		cookies = append(cookies, fmt.Sprintf("a=%03d", i))
	}
	seen := make(chan string, 1000)
	addr := site(t, 503, func(r *http.Request) { seen <- r.Header.Get("Cookie") })
	r := Once(t.Context(), Target{Addr: addr, Host: "app.test", Size: 1, Cookies: cookies}, 100, 10*time.Millisecond, true)
	if r.Calls != 100 || r.Failed != 100 || r.Quantile(0) <= 0 {
		t.Errorf("got %d requests, %d failed; want 100", r.Calls, r.Failed)
	}
	close(seen)
	for c := range seen {
		got = append(got, c)
	}
	if slices.Sort(got); !slices.Equal(got, cookies) {
		t.Errorf("got %q, want %q", got, cookies)
	}
}

func TestCallsAreCountedUntilAnError(t *testing.T) {
	var seen [1000]atomic.Int64
	if r := Times(len(seen), 64, func(i int) { seen[i].Add(1) }); r.Calls != len(seen) {
		t.Fatalf("got %d calls, want %d", r.Calls, len(seen))
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("call %d: got %d times, want once", i, n)
		}
	}
	broken := errors.New("broken")
	if err := check.Run(func() { Times(10, 4, func(int) { check.OK(broken) }) }); !errors.Is(err, broken) {
		t.Errorf("got error %v, want %v", err, broken)
	}
}

func TestPacedCallsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		r := Paced(100, func() bool { return time.Since(begun) >= time.Second }, func(int) { time.Sleep(3 * time.Second) })
		if r.Calls < 100 || r.Calls > 102 || r.Quantile(1) != 3*time.Second {
			t.Errorf("got %d calls of up to %v, want 100 calls of 3 s", r.Calls, r.Quantile(1))
		}
	})
}

func TestQuantile(t *testing.T) {
	r := Result{Took: []time.Duration{1, 2, 3, 4}}
	if got := []time.Duration{r.Quantile(0), r.Quantile(0.5), r.Quantile(1)}; !slices.Equal(got, []time.Duration{1, 3, 4}) {
		t.Errorf("got quantiles %v, want 1, 3 and 4", got)
	}
}
