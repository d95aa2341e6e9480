package security

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// extendedConnect makes the HTTP/2 server of Go's net/http, which Caddy uses, accept
// WebSockets (RFC 8441). It does not offer them by default, and browsers then use
// HTTP/1.1. Over HTTP/3 (RFC 9220) they are always accepted.
const extendedConnect = "GODEBUG=http2xconnect=1"

// A socket is an open WebSocket, after its handshake.
type socket struct {
	io.Reader
	io.Writer
}

// echoes sends a text and expects the same text back.
func (s socket) echoes(text string) error {
	// FIN and text, masked with zeros (RFC 6455, section 5.2).
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	if _, err := s.Write(frame); err != nil {
		return err
	}
	back := make([]byte, 2+len(text))
	if _, err := io.ReadFull(s, back); err != nil {
		return err
	}
	if string(back[2:]) != text {
		return fmt.Errorf("got %q back for %q", back, text)
	}
	return nil
}

// awaitEnd reads until a stream ends, with or without an error.
func awaitEnd(stream io.Reader) { _, _ = io.Copy(io.Discard, stream) }

// streamRequest returns a request that lasts until ctx ends.
func (w *world) streamRequest(ctx context.Context, t testing.TB, method, path, cookie string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, w.site+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", w.site)
	if cookie != "" {
		req.Header.Set("Cookie", sessionCookie+"="+cookie)
	}
	return req
}

// openSocket opens a WebSocket in the way of the protocol. The socket is nil if the site
// refuses it.
func (w *world) openSocket(ctx context.Context, t testing.TB, protocol string, tr http.RoundTripper, cookie, origin string) (*socket, int) {
	t.Helper()
	var req *http.Request
	var up io.Writer
	if protocol == "HTTP/1.1" {
		req = w.streamRequest(ctx, t, http.MethodGet, "/u/ws", cookie, nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "websocket")
		req.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	} else {
		in, out := io.Pipe()
		req, up = w.streamRequest(ctx, t, http.MethodConnect, "/u/ws", cookie, in), out
		if protocol == "HTTP/2" {
			req.Header[":protocol"] = []string{"websocket"}
		} else {
			req.Proto = "websocket"
		}
	}
	req.Header.Set("Origin", origin)
	req.Header.Set("Sec-WebSocket-Version", "13")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatalf("opening a WebSocket over %s: %v", protocol, err)
	}
	context.AfterFunc(ctx, func() { resp.Body.Close() })
	want := http.StatusOK
	if protocol == "HTTP/1.1" {
		want = http.StatusSwitchingProtocols
		up, _ = resp.Body.(io.Writer)
	}
	if resp.StatusCode != want {
		return nil, resp.StatusCode
	}
	return &socket{resp.Body, up}, resp.StatusCode
}

// openEvents opens an event stream and waits for its first event.
func (w *world) openEvents(ctx context.Context, t testing.TB, tr http.RoundTripper, cookie string) *bufio.Reader {
	t.Helper()
	resp, err := tr.RoundTrip(w.streamRequest(ctx, t, http.MethodGet, "/u/sse", cookie, nil))
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { resp.Body.Close() })
	events := bufio.NewReader(resp.Body)
	if err := nextEvent(events); err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("event stream: got status %d, %v", resp.StatusCode, err)
	}
	return events
}

func nextEvent(events *bufio.Reader) error {
	for {
		line, err := events.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "data: tick") {
			return err
		}
	}
}

// An upload is a request that is still sending its body.
type upload struct {
	io.Writer
	close  func() error
	answer chan uploadResult
}

type uploadResult struct {
	status int
	seen   echo.Request
	err    error
}

func (w *world) startUpload(ctx context.Context, t testing.TB, tr http.RoundTripper, cookie string) *upload {
	in, out := io.Pipe()
	req := w.streamRequest(ctx, t, http.MethodPost, "/upload", cookie, in)
	u := &upload{out, out.Close, make(chan uploadResult, 1)}
	go func() {
		var a uploadResult
		var resp *http.Response
		if resp, a.err = tr.RoundTrip(req); a.err == nil {
			defer resp.Body.Close()
			a.status, a.err = resp.StatusCode, json.NewDecoder(resp.Body).Decode(&a.seen)
		}
		u.answer <- a
	}()
	return u
}

// sessionEnds returns ways to end the session of a browser at the second instance.
func (w *world) sessionEnds() map[string]func(t *testing.T, b *browser, user string) {
	return map[string]func(t *testing.T, b *browser, user string){
		"logout": func(t *testing.T, b *browser, _ string) {
			if resp := b.at(1).xhr(t, http.MethodPost, logout); resp.Status != http.StatusOK {
				t.Errorf("logout: got %v, want 200", resp)
			}
		},
		"back-channel": func(t *testing.T, _ *browser, user string) {
			token, err := w.idp.LogoutToken(fakeas.Logout{ClientID: clientID, Subject: user})
			if err != nil {
				t.Fatal(err)
			}
			resp := w.browserAt(1).send(t, http.MethodPost, backchannel, "logout_token="+token, "Content-Type: application/x-www-form-urlencoded")
			if resp.Status != http.StatusOK {
				t.Errorf("back-channel logout: got %v, want 200", resp)
			}
		},
	}
}

// TestS71StreamsEndWithTheirSession: WebSockets, event streams and long requests pass
// unchanged over every protocol and survive a refresh. They end with their session: by a
// logout at another instance, or by a back-channel logout. Streams of other sessions
// continue.
func TestS71StreamsEndWithTheirSession(t *testing.T) {
	w := newWorld(t, plan{mostlyWaits: true, redis: true, env: []string{extendedConnect}})
	w.announceLifetime(2) // seconds
	for _, protocol := range protocols {
		for ending, end := range w.sessionEnds() {
			user := strings.NewReplacer("/", "", ".", "").Replace(protocol + ending)
			t.Run(protocol+", "+ending, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 4*waitLimit)
				defer cancel()
				tr := w.over(t, protocol)
				mine, other := w.browser(), w.browser()
				mine.loginAs(t, user, "/")
				other.loginAs(t, user+"-other", "/")
				ws, events, upload := w.openStreams(ctx, t, protocol, tr, mine.session())
				theirs, theirEvents, _ := w.openStreams(ctx, t, protocol, tr, other.session())

				before := w.accessTokens(user)
				eventually(t, "refresh", func() bool {
					mine.checkSession(t)
					return w.accessTokens(user) > before
				})
				w.checkStreamsOpen(t, ws, events, upload)
				if err := upload.close(); err != nil {
					t.Fatal(err)
				}
				if a := <-upload.answer; a.err != nil || a.status != http.StatusOK || a.seen.BodyLength != 2*int64(len("part")) {
					t.Errorf("upload: got %+v", a)
				}

				waiting := make(chan int, 1)
				go func() { waiting <- w.slowStatus(ctx, t, tr, mine.session()) }()
				eventually(t, "long request", func() bool { return w.appReceivedFrom("/u/slow", user) })
				end(t, mine, user)
				awaitEnd(ws)
				awaitEnd(events)
				if status := <-waiting; status != http.StatusUnauthorized {
					t.Errorf("long request: got status %d, want 401", status)
				}
				if ctx.Err() != nil {
					t.Fatal("the streams outlived their session")
				}
				if err := theirs.echoes("still here"); err != nil {
					t.Errorf("WebSocket of another session: %v", err)
				}
				if err := nextEvent(theirEvents); err != nil {
					t.Errorf("event stream of another session: %v", err)
				}
			})
		}
	}
}

// TestS71StreamsEndAtTheAbsoluteLimit: streams also end when their session reaches
// max_lifetime.
func TestS71StreamsEndAtTheAbsoluteLimit(t *testing.T) {
	w := newWorld(t, plan{mostlyWaits: true, env: []string{extendedConnect}, options: "max_lifetime 20s"})
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
			defer cancel()
			b := w.loggedIn(t)
			ws, events, _ := w.openStreams(ctx, t, protocol, w.over(t, protocol), b.session())
			awaitEnd(ws)
			awaitEnd(events)
			if ctx.Err() != nil {
				t.Fatal("the streams outlived their session")
			}
		})
	}
}

// accessTokens returns the number of access tokens issued to a user.
func (w *world) accessTokens(user string) int {
	n := 0
	for _, issued := range w.idp.Tokens() {
		if issued.Kind == fakeas.KindAccess && issued.User == user {
			n++
		}
	}
	return n
}

// appReceivedFrom reports whether the app has received a user's request for a path.
func (w *world) appReceivedFrom(path, user string) bool {
	return slices.ContainsFunc(w.app.Requests(), func(r echo.Request) bool {
		return strings.Contains(r.Line, path) && slices.Equal(r.Values("X-User"), []string{user})
	})
}

// openStreams opens a WebSocket, an event stream and an upload.
func (w *world) openStreams(ctx context.Context, t *testing.T, protocol string, tr http.RoundTripper, cookie string) (*socket, *bufio.Reader, *upload) {
	t.Helper()
	ws, status := w.openSocket(ctx, t, protocol, tr, cookie, w.site)
	if ws == nil {
		t.Fatalf("WebSocket: got %d", status)
	}
	events, upload := w.openEvents(ctx, t, tr, cookie), w.startUpload(ctx, t, tr, cookie)
	w.checkStreamsOpen(t, ws, events, upload)
	return ws, events, upload
}

// checkStreamsOpen checks that all three still transfer data.
func (w *world) checkStreamsOpen(t *testing.T, ws *socket, events *bufio.Reader, upload *upload) {
	t.Helper()
	if err := ws.echoes("hello"); err != nil {
		t.Errorf("WebSocket: %v", err)
	}
	if err := nextEvent(events); err != nil {
		t.Errorf("event stream: %v", err)
	}
	if _, err := io.WriteString(upload, "part"); err != nil {
		t.Errorf("upload: %v", err)
	}
}

// slowStatus returns the status of a request that lasts longer than its session.
func (w *world) slowStatus(ctx context.Context, t testing.TB, tr http.RoundTripper, cookie string) int {
	resp, err := tr.RoundTrip(w.streamRequest(ctx, t, http.MethodGet, "/u/slow?d=9m", cookie, nil))
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestCrossSiteWebSocketIsRefused: a page of another site cannot open a WebSocket with the
// session of a user, over any protocol.
func TestCrossSiteWebSocketIsRefused(t *testing.T) {
	w := newWorld(t, plan{env: []string{extendedConnect}})
	b := w.loggedIn(t)
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			tr := w.over(t, protocol)
			ctx, cancel := boundedContext(t)
			defer cancel()
			for origin, want := range map[string]int{"https://evil.test": http.StatusForbidden, "null": http.StatusForbidden, "https://x." + w.host: http.StatusForbidden} {
				if ws, status := w.openSocket(ctx, t, protocol, tr, b.session(), origin); ws != nil || status != want {
					t.Errorf("Origin %s: got status %d, want %d", origin, status, want)
				}
			}
			if ws, status := w.openSocket(ctx, t, protocol, tr, "", w.site); ws != nil || status != http.StatusUnauthorized {
				t.Errorf("without a session: got status %d, want 401", status)
			}
			reached := w.appRequests(func() {
				if ws, status := w.openSocket(ctx, t, protocol, tr, b.session(), w.site); ws == nil || ws.echoes("hello") != nil {
					t.Errorf("from the site: got status %d, want an open WebSocket", status)
				}
			})
			if len(reached) != 1 || reached[0].Values("Cookie") != nil {
				t.Fatalf("the app got %v, want one request without cookies", reached)
			}
			w.checkOwnToken(t, reached[0])
		})
	}
}
