package handler

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestEarlyHintsOfARefusedAnswerPass, but their header is not part of the second
// answer.
func TestEarlyHintsOfARefusedAnswerPass(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	cookie := g.oldSession(time.Minute)
	g.as.Revoke(g.as.newest(fakeas.KindAccess))
	address := overTheWire(t, g, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := g.as.ValidAccessToken(bearer(r)); ok {
			_, _ = io.WriteString(w, "welcome")
			return
		}
		w.Header().Set("Link", "</denied.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_ = refuse(w)
	})
	hints, resp, body := fetchHinted(t, address, cookie)
	if resp.StatusCode != 200 || body != "welcome" || g.as.refreshes() != 1 {
		t.Errorf("got status %d, want 200, %d refreshes: %q", resp.StatusCode, g.as.refreshes(), body)
	}
	if len(hints) != 1 || hints[0].Get("Link") == "" {
		t.Errorf("got hints %v, want one with Link", hints)
	}
	if resp.Header["Link"] != nil || resp.Header["X-First"] != nil {
		t.Errorf("got header %v on the second answer, want none of the first", resp.Header)
	}
}

// fetchHinted gets a page and the 1xx answers before it.
func fetchHinted(t *testing.T, address, cookie string) (hints []textproto.MIMEHeader, resp *http.Response, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", sessionCookie+"="+cookie)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
			hints = append(hints, header)
			return nil
		},
	}))
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err = transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return hints, resp, string(b)
}

// TestRetryingDisturbsNoAnswer that is not refused.
func TestRetryingDisturbsNoAnswer(t *testing.T) {
	t.Run("stream and trailers", func(t *testing.T) {
		g := newRig(t, plainOAuth, retrying)
		goOn := make(chan bool)
		address := overTheWire(t, g, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "first\n")
			_ = http.NewResponseController(w).Flush()
			<-goOn // the client has the first part before there is a second
			_, _ = io.WriteString(w, "second\n")
			w.Header().Set("X-Sum", "2")
			w.Header().Set(http.TrailerPrefix+"X-Late", "3")
		})
		_, resp := send(t, address, "GET / HTTP/1.1\nHost: app.test\nCookie: "+sessionCookie+"="+g.session("")+"\n\n")
		body := bufio.NewReader(resp.Body)
		if line, err := body.ReadString('\n'); line != "first\n" || err != nil {
			t.Errorf("got line %q, error %v, want the app's", line, err)
		}
		close(goOn)
		if rest, err := io.ReadAll(body); string(rest) != "second\n" || err != nil {
			t.Errorf("got rest %q, error %v, want the app's", rest, err)
		}
		if resp.Trailer.Get("X-Sum") != "2" || resp.Trailer.Get("X-Late") != "3" {
			t.Errorf("got trailers %v, want the app's", resp.Trailer)
		}
	})
	t.Run("early hints", func(t *testing.T) {
		g := newRig(t, plainOAuth, retrying)
		address := overTheWire(t, g, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			_, _ = io.WriteString(w, "page")
		})
		hints, resp, body := fetchHinted(t, address, g.session(""))
		if len(hints) != 2 || hints[0].Get("Link") == "" || resp.StatusCode != 200 || body != "page" {
			t.Errorf("hints %v, status %d, want 200: %q", hints, resp.StatusCode, body)
		}
	})
}

func TestRetryingKeepsAnAcceptedWebSocket(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	address := overTheWire(t, g, func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-Websocket-Accept: yes\r\n\r\n")
		line, _ := buf.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	})
	conn, resp := send(t, address, "GET / HTTP/1.1\nHost: app.test\nUpgrade: websocket\nConnection: Upgrade\nCookie: "+sessionCookie+"="+g.session("")+"\n\n")
	if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "yes" {
		t.Fatalf("got status %d, want 101, %v", resp.StatusCode, resp.Header)
	}
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "echo hello\n" {
		t.Errorf("got line %q, error %v, want the app's", line, err)
	}
}

// TestRefusedWebSocketIsNotRepeated: the client gets the refusal.
func TestRefusedWebSocketIsNotRepeated(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	cookie := g.oldSession(time.Minute)
	g.as.Revoke(g.as.newest(fakeas.KindAccess))
	calls := 0
	address := overTheWire(t, g, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_ = refuse(w)
	})
	_, resp := send(t, address, "GET / HTTP/1.1\nHost: app.test\nUpgrade: websocket\nConnection: Upgrade\nCookie: "+sessionCookie+"="+cookie+"\n\n")
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 401 || string(body) != "not with this token" || calls != 1 {
		t.Errorf("got status %d, want 401 after %d calls: %q, %v", resp.StatusCode, calls, body, err)
	}
}

// readerFromRecorder records calls of ReadFrom.
type readerFromRecorder struct {
	*httptest.ResponseRecorder
	readFrom int
}

func (w *readerFromRecorder) ReadFrom(r io.Reader) (int64, error) {
	w.readFrom++
	return io.Copy(w.ResponseRecorder.Body, r)
}

// TestRetryingKeepsTheFastPath: the kernel sends a file to the socket, if the
// underlying writer can.
func TestRetryingKeepsTheFastPath(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	w := &readerFromRecorder{ResponseRecorder: httptest.NewRecorder()}
	body := bytes.Repeat([]byte("x"), 1<<20)
	err := g.handler.ServeHTTP(w, g.request("GET", "/", with(g.session(""), script)...), NextFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-File", "1")

		_, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(body)})
		return err
	}))

	if err != nil || w.readFrom != 1 || !bytes.Equal(w.Body.Bytes(), body) || w.Header().Get("X-File") != "1" {
		t.Errorf("got error %v, %d calls of ReadFrom, %d bytes, header %v, want one call", err, w.readFrom, w.Body.Len(), w.Header())
	}
}

// TestRetryKeepsTheAppsHeaderMap: a handler may keep the map, and set trailers in
// it after the body (net/http, ResponseWriter).
func TestRetryKeepsTheAppsHeaderMap(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	w := httptest.NewRecorder()
	err := g.handler.ServeHTTP(w, g.request("GET", "/", with(g.session(""), script)...), NextFunc(func(w http.ResponseWriter, _ *http.Request) error {
		header := w.Header()
		header.Set("Trailer", "X-Sum")
		_, err := io.WriteString(w, "body")
		header.Set("X-Sum", "1")
		return err
	}))

	if got := w.Result().Trailer.Get("X-Sum"); err != nil || got != "1" {
		t.Errorf("got error %v, trailer %q, want 1", err, got)
	}
}

func TestRepeatedRequestDiffersOnlyInTheToken(t *testing.T) {
	g := newRig(t, plainOAuth, retrying)
	cookie := g.oldSession(time.Minute)
	first := g.as.newest(fakeas.KindAccess)
	g.as.Revoke(first)
	var seen []http.Header
	var urls []*url.URL
	address := overTheWire(t, g, func(w http.ResponseWriter, r *http.Request) {
		seen, urls = append(seen, r.Header.Clone()), append(urls, r.URL)
		if _, ok := g.as.ValidAccessToken(bearer(r)); !ok {
			_ = refuse(w)
		}
	})
	_, resp := send(t, address, "GET /a?b=c HTTP/1.1\nHost: app.test\nX-Mine: 1\nAuthorization: Bearer EVIL\nConnection: X-Mine\nCookie: a=1; "+sessionCookie+"="+cookie+"\n\n")
	if resp.StatusCode != 200 || len(seen) != 2 {
		t.Fatalf("got status %d, want 200 after %d requests", resp.StatusCode, len(seen))
	}
	if seen[0].Get("Authorization") != "Bearer "+first || seen[1].Get("Authorization") != "Bearer "+g.as.newest(fakeas.KindAccess) {
		t.Errorf("got tokens %.20q and %.20q, want the old and the new one", seen[0].Get("Authorization"), seen[1].Get("Authorization"))
	}
	seen[1].Set("Authorization", seen[0].Get("Authorization"))
	if diff := cmp.Diff(seen[0], seen[1]); diff != "" || *urls[0] != *urls[1] {
		t.Errorf("got URLs %v and %v, want equal requests:\n%s", urls[0], urls[1], diff)
	}
}
