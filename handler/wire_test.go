package handler

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// overTheWire serves the rig's site on a socket, with a reverse proxy to an
// upstream as the app, and returns its address.
func overTheWire(t *testing.T, g *rig, upstream http.HandlerFunc) (address string) {
	t.Helper()
	front := httptest.NewServer(proxied(t, g, upstream))
	t.Cleanup(front.Close)
	return front.Listener.Addr().String()
}

// overHTTP2 is overTheWire over HTTP/2 only. It returns the site's origin.
func overHTTP2(t *testing.T, g *rig, upstream http.HandlerFunc) (origin string, client http.RoundTripper) {
	t.Helper()
	front := httptest.NewUnstartedServer(proxied(t, g, upstream))
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	return front.URL, front.Client().Transport
}

func proxied(t *testing.T, g *rig, upstream http.HandlerFunc) http.Handler {
	t.Helper()
	back := httptest.NewServer(upstream)
	t.Cleanup(back.Close)
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.handler.ServeHTTP(w, r, NextFunc(func(w http.ResponseWriter, r *http.Request) error {
			proxy.ServeHTTP(w, r)
			return nil
		}))

	})
}

// send writes a raw request and returns the connection and the answer.
func send(t *testing.T, address, raw string) (net.Conn, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, strings.ReplaceAll(raw, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, resp
}

func TestWebSocketEndsWithItsSession(t *testing.T) {
	g := newRig(t, plainOAuth)
	got := make(chan http.Header, 1)
	address := overTheWire(t, g, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(io.Discard, buf)
	})
	cookie := g.session("")
	conn, resp := send(t, address, "GET /socket HTTP/1.1\nHost: app.test\nUpgrade: websocket\nConnection: Upgrade, authorization\nAuthorization: Bearer EVIL\nCookie: a=1; "+
		sessionCookie+"="+cookie+"\n\n")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got status %d, want 101", resp.StatusCode)
	}
	if h := <-got; h.Get("Authorization") != "Bearer AT_made_by_hand" || h.Get("Cookie") != "a=1" || h.Get("Connection") != "Upgrade" {
		t.Errorf("got header %v at the upstream, want the token and no value of the client", h)
	}
	g.post("/oauth2/logout", "Cookie: "+sessionCookie+"="+cookie)
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Logf("the connection ended with %v", err)
	}
	<-g.as.revoked
}

func TestSmuggledRequestsReachNoApp(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.HeaderName = "X-Access-Token" })
	got := make(chan http.Header, 1)
	address := overTheWire(t, g, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() })
	cookie := sessionCookie + "=" + g.session("")
	for _, header := range []string{
		"Connection: X-Access-Token", "Connection: close, x-access-token", "x-access-token: EVIL\nX_Access_Token: EVIL\nAuthorization: EVIL",
		"Upgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABkAAQAAP__",
	} {
		_, resp := send(t, address, fmt.Sprintf("GET / HTTP/1.1\nHost: app.test\nCookie: b=2\nCookie: %s\n%s\n\n", cookie, header))
		if resp.StatusCode != 200 {
			t.Fatalf("%q: got status %d, want 200", header, resp.StatusCode)
		}
		h := <-got
		if h.Get("X-Access-Token") != "Bearer AT_made_by_hand" || strings.Contains(fmt.Sprint(h), "EVIL") || h["Upgrade"] != nil || h.Get("Cookie") != "b=2" {
			t.Errorf("%q: got header %v at the upstream, want the token and no value of the client", header, h)
		}
	}
}

// TestTrailersDoNotReachTheApp: proxies pass trailers on at the end of the body,
// announced or not, and some apps read them as headers.
func TestTrailersDoNotReachTheApp(t *testing.T) {
	g := newRig(t, plainOAuth, optional, func(s *setup) { s.handler.HeaderName = "X-Access-Token" })
	got := make(chan http.Header, 1)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.handler.ServeHTTP(w, r, NextFunc(func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.Copy(io.Discard, r.Body)
			got <- r.Trailer
			return err
		}))

	}))
	t.Cleanup(front.Close)
	for name, cookie := range map[string]string{"session": sessionCookie + "=" + g.session(""), "anonymous": "a=1"} {
		for _, announced := range []string{"Authorization, X-Access-Token, X-Sum", "X-Sum"} {
			_, resp := send(t, front.Listener.Addr().String(), fmt.Sprintf("POST / HTTP/1.1\nHost: app.test\nCookie: %s\nTrailer: %s\nTransfer-Encoding: chunked\n\n"+
				"1\nx\n0\nAuthorization: Bearer EVIL\nX-Access-Token: EVIL\nX-Sum: 1\n\n", cookie, announced))
			if resp.StatusCode != 200 {
				t.Fatalf("%s, announced %q: got status %d, want 200", name, announced, resp.StatusCode)
			}
			if trailer := <-got; strings.Contains(fmt.Sprint(trailer), "EVIL") {
				t.Errorf("%s, announced %q: got trailers %v at the app, want none of the client", name, announced, trailer)
			}
		}
	}
}

// TestExpectContinueSendsNoBodyWithoutASession: it would be discarded.
func TestExpectContinueSendsNoBodyWithoutASession(t *testing.T) {
	g := newRig(t, plainOAuth)
	got := make(chan string, 1)
	address := overTheWire(t, g, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	})
	const head = "POST / HTTP/1.1\nHost: app.test\nContent-Length: 4\nExpect: 100-continue\nCookie: "
	if _, resp := send(t, address, head+"a=1\n\n"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: got status %d, want 401", resp.StatusCode)
	}
	conn, resp := send(t, address, head+sessionCookie+"="+g.session("")+"\n\n")
	if resp.StatusCode != http.StatusContinue {
		t.Fatalf("with a session: got status %d, want 100", resp.StatusCode)
	}
	if _, err := io.WriteString(conn, "body"); err != nil {
		t.Fatal(err)
	}
	if body := <-got; body != "body" {
		t.Errorf("the upstream got %q, want %q", body, "body")
	}
}
