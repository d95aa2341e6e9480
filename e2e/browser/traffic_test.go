package browser_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
)

// opens opens a WebSocket and resolves to whether that succeeded.
const opens = `(path) => new Promise((resolve) => {
	const socket = new WebSocket(location.origin.replace("http", "ws") + path);
	socket.onopen = () => { (window.open_ ??= []).push(socket); resolve(true); };
	socket.onerror = () => resolve(false);
})`

func TestTrafficCountsWebSocketsAndAnswers(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<!doctype html>page") })
	mux.HandleFunc("/refused/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	mux.Handle("/ws", websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	_, page := browser.Start(t)
	traffic := page.Watch(t)
	page.Open(t, server.URL+"/")
	for path, want := range map[string]bool{"/ws": true, "/refused/ws": false} {
		if got := browser.Eval[bool](t, page, `(`+opens+`)("`+path+`")`); got != want {
			t.Errorf("opening %s: got %t, want %t", path, got, want)
		}
	}
	page.Fetch(t, "/refused/x", browser.Request{})
	wantTraffic(t, traffic, "ws", 1, 1)
	wantSoon(t, "answers with status 401, to the fetch and to the WebSocket", 2, func() int {
		return traffic.Answers("/refused", http.StatusUnauthorized)
	})
	page.Reload(t)
	wantTraffic(t, traffic, "ws", 0, 1)
}

func wantTraffic(t *testing.T, traffic *browser.Traffic, path string, open, opened int) {
	t.Helper()
	wantSoon(t, "open WebSockets", open, func() int { return traffic.Open(path) })
	wantSoon(t, "opened WebSockets", opened, func() int { return traffic.Opened(path) })
}

// wantSoon waits until a count is the wanted one: the browser reports its traffic after the page has seen it.
func wantSoon(t *testing.T, name string, want int, count func() int) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for count() != want {
		if time.Now().After(end) {
			t.Fatalf("got %d %s, want %d", count(), name, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
