package handler

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// planted has Set-Cookie lines of an app, and whether browsers get them.
var planted = []struct {
	line   string
	passes bool
}{
	{"a=1; Path=/", true},
	{sessionCookie + "=x", false},
	{sessionCookie + "=x; Path=/; Secure; HttpOnly; SameSite=Lax", false},
	{sessionCookie + "=; Max-Age=0; path=/; SECURE", false},
	{sessionCookie, false},
	{sessionCookie + ";", false},
	{"  " + sessionCookie + " \t= x", false},
	{"=" + sessionCookie + "=x; Secure", false}, // browsers send it back without the first =
	{" = " + sessionCookie + "=x", false},
	{"\x00" + sessionCookie + "=x", false},
	{loginCookiePrefix + "abc=x; Path=/; Secure", false},
	{loginCookiePrefix + "=x", false},
	{"=" + loginCookiePrefix + "abc=x", false},
	{"x" + sessionCookie + "=1", true},
	{sessionCookie + "2=1", true},
	{"__Host-other=" + sessionCookie + "=x", true},
	{"b=2; " + sessionCookie + "=x", true}, // no attribute that browsers know
	{`c="` + sessionCookie + `=x"`, true},
	{"", true},
}

func TestAppCannotSetOwnCookies(t *testing.T) {
	for name, options := range map[string][]func(*setup){"": {plainOAuth, optional}, "retrying": {plainOAuth, optional, retrying}} {
		g := newRig(t, options...)
		cookie := g.session("")
		for _, tt := range planted {
			for _, others := range [][]string{nil, {"first=1"}, {"first=1", loginCookiePrefix + "x=y"}} {
				lines, want := append(slices.Clone(others), tt.line, "last=1"), []string{"last=1"}
				if tt.passes {
					want = []string{tt.line, "last=1"}
				}
				if others != nil {
					want = append([]string{"first=1"}, want...)
				}
				given := slices.Clone(lines)
				for how, answer := range map[string]func(http.ResponseWriter) error{
					"nothing":     func(http.ResponseWriter) error { return nil },
					"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(http.StatusNotModified); return nil },
					"Write":       func(w http.ResponseWriter) error { _, err := io.WriteString(w, "x"); return err },
					"ReadFrom": func(w http.ResponseWriter) error {
						_, err := io.Copy(w, struct{ io.Reader }{strings.NewReader("x")})
						return err
					},
					"Flush": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
				} {
					g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
						w.Header()["Set-Cookie"] = lines
						return answer(w)
					}
					for _, header := range [][]string{script, with(cookie, script)} {
						if a := g.get("/", header...); a.relayed != 1 || !slices.Equal(a.header["Set-Cookie"], want) {
							t.Errorf("%s %s: of %q the browser got %q, want the app's cookies only", name, how, lines, a.header["Set-Cookie"])
						}
					}
				}
				if !slices.Equal(lines, given) {
					t.Errorf("got the app's slice %q changed to %q, want it unchanged", given, lines)
				}
			}
		}
	}
}

// TestAppCannotSetOwnCookiesWithAnError: the error page would carry them.
func TestAppCannotSetOwnCookiesWithAnError(t *testing.T) {
	g := newRig(t, plainOAuth)
	failure := errors.New("half an answer")
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Set-Cookie"] = []string{sessionCookie + "=x", "a=1"}
		return failure
	}
	if a := g.get("/", with(g.session(""), script)...); !errors.Is(a.err, failure) || !slices.Equal(a.header["Set-Cookie"], []string{"a=1"}) {
		t.Errorf("got error %v, cookies %q, want the app's error and cookie", a.err, a.header["Set-Cookie"])
	}
}

func TestOwnCookieOfAConfiguredNameIsGuarded(t *testing.T) {
	g := newRig(t, plainOAuth, optional, func(s *setup) { s.handler.Cookie = Cookie{Name: "__Secure-sid", Domain: "app.test"} })
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Set-Cookie"] = []string{"__Secure-sid=x; Domain=app.test", sessionCookie + "=x", loginCookiePrefix + "a=x"}
		return nil
	}
	if a := g.get("/", script...); !slices.Equal(a.header["Set-Cookie"], []string{sessionCookie + "=x"}) {
		t.Errorf("got cookies %q, want the app's only", a.header["Set-Cookie"])
	}
}

// TestHandlersOwnCookiesPass: only the app's cookies are checked.
func TestHandlersOwnCookiesPass(t *testing.T) {
	g := newRig(t, plainOAuth)
	ended := make(chan string, 1)
	g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Add("Set-Cookie", sessionCookie+"=x")
		g.post("/oauth2/logout", "Cookie: "+sessionCookie+"="+<-ended)
		<-r.Context().Done()
		return r.Context().Err()
	}
	cookie := g.session("")
	ended <- cookie
	a := g.get("/", with(cookie, navigation)...)
	if a.status != 302 || len(a.header["Set-Cookie"]) != 1 || !strings.HasPrefix(a.header["Set-Cookie"][0], loginCookiePrefix) {
		t.Errorf("got status %d, want 302, cookies %q", a.status, a.header["Set-Cookie"])
	}
	if lines := g.log.lines("the cookie was removed from the answer"); len(lines) != 1 {
		t.Errorf("got log lines %q, want none", lines)
	}
	<-g.as.revoked
}

// TestRemovedCookieIsLogged once a minute, without the value that the app has set.
func TestRemovedCookieIsLogged(t *testing.T) {
	as := startAuthServer(t)
	synctest.Test(t, func(t *testing.T) {
		g := newRigAt(t, as, plainOAuth, optional)
		g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Add("Set-Cookie", loginCookiePrefix+"FOREIGN=FOREIGN")
			return nil
		}
		for want := 1; want <= 2; want++ {
			for range 3 {
				g.get("/which\u200e%0a"+strings.Repeat("x", 500), script...)
			}
			lines := g.log.lines("the cookie was removed from the answer")
			if len(lines) != want || !strings.Contains(lines[0], `"path":"/which`) || strings.Contains(lines[0], "FOREIGN") || len(lines[0]) > 500 {
				t.Errorf("got %d log lines %q, want 1", len(lines), lines)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestAppCannotSetOwnCookiesOnTheWire in early hints, in the answer to an upgrade,
// and in trailers, announced or not, over HTTP/1.1 and HTTP/2.
func TestAppCannotSetOwnCookiesOnTheWire(t *testing.T) {
	ours, theirs := sessionCookie+"=x; Path=/; Secure", "a=1"
	both := []string{ours, theirs}
	upstream := func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Set-Cookie"] = both
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum, Set-Cookie")
		if r.URL.Path == "/unannounced" {
			w.Header().Del("Trailer")
		}
		_, _ = io.WriteString(w, "page")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/unannounced" {
			w.Header()[http.TrailerPrefix+"Set-Cookie"] = both
		} else {
			w.Header()["X-Sum"] = []string{"1"}
		}
	}
	for _, options := range [][]func(*setup){{plainOAuth}, {plainOAuth, retrying}} {
		g := newRig(t, options...)
		plain := "http://" + overTheWire(t, g, upstream)
		secure, client := overHTTP2(t, g, upstream)
		for address, transport := range map[string]http.RoundTripper{plain: http.DefaultTransport, secure: client} {
			for _, path := range []string{"/announced", "/unannounced"} {
				hinted, resp := exchange(t, transport, address+path, g.session(""))
				if got := resp.Header["Cache-Control"]; !slices.Equal(got, []string{"private"}) {
					t.Errorf("%s %s: after early hints: got Cache-Control %q, want none", resp.Proto, path, got)
				}
				// This proxy adds an announced trailer to the header.
				resp.Trailer["Set-Cookie"] = slices.Compact(resp.Trailer["Set-Cookie"])
				for where, lines := range map[string][]string{"early hints": hinted, "header": resp.Header["Set-Cookie"], "trailer": resp.Trailer["Set-Cookie"]} {
					if !slices.Equal(lines, []string{theirs}) {
						t.Errorf("%s %s: got in the %s %q, want the app's cookies only", resp.Proto, path, where, lines)
					}
				}
			}
		}
	}
}

// exchange returns the cookies in early hints, and the answer at its end.
func exchange(t *testing.T, transport http.RoundTripper, target, cookie string) (hinted []string, resp *http.Response) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", sessionCookie+"="+cookie)
	resp, err = transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, header textproto.MIMEHeader) error {
			hinted = header["Set-Cookie"]
			return nil
		},
	})))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); string(body) != "page" {
		t.Fatalf("got body %q, %v, want the app's", body, err)
	}
	return hinted, resp
}

// TestAppCannotSetOwnCookiesWithAnUpgrade: the answer is checked like any other if
// it is written before the connection is hijacked, as Caddy's proxy does.
func TestAppCannotSetOwnCookiesWithAnUpgrade(t *testing.T) {
	for _, options := range [][]func(*setup){{plainOAuth}, {plainOAuth, retrying}} {
		g := newRig(t, options...)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = g.handler.ServeHTTP(w, r, NextFunc(func(w http.ResponseWriter, _ *http.Request) error {
				w.Header()["Set-Cookie"] = []string{sessionCookie + "=x", "a=1"}
				w.Header()["Upgrade"], w.Header()["Connection"] = []string{"websocket"}, []string{"Upgrade"}
				w.WriteHeader(http.StatusSwitchingProtocols)
				conn, buf, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return nil
				}
				defer conn.Close()
				_, _ = buf.WriteString("hello\n")
				return buf.Flush()
			}))

		}))
		t.Cleanup(front.Close)
		conn, resp := send(t, front.Listener.Addr().String(), "GET / HTTP/1.1\nHost: app.test\nUpgrade: websocket\nConnection: Upgrade\nCookie: "+sessionCookie+"="+g.session("")+"\n\n")
		if resp.StatusCode != 101 || !slices.Equal(resp.Header["Set-Cookie"], []string{"a=1"}) {
			t.Errorf("got status %d, want 101 with %q", resp.StatusCode, resp.Header["Set-Cookie"])
		}
		_ = conn.Close()
	}
}

// everyWriter implements all interfaces of a server's writer, and records the
// calls.
type everyWriter struct {
	*httptest.ResponseRecorder
	done []string
}

func (w *everyWriter) note(what string) { w.done = append(w.done, what) }

func (w *everyWriter) FlushError() error { w.note("flush"); return nil }
func (w *everyWriter) ReadFrom(r io.Reader) (int64, error) {
	w.note("read from")
	return io.Copy(w.Body, r)
}
func (w *everyWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.note("hijack")
	return nil, nil, nil
}
func (w *everyWriter) Push(string, *http.PushOptions) error { w.note("push"); return nil }
func (w *everyWriter) SetReadDeadline(time.Time) error      { w.note("read deadline"); return nil }
func (w *everyWriter) SetWriteDeadline(time.Time) error     { w.note("write deadline"); return nil }
func (w *everyWriter) EnableFullDuplex() error              { w.note("full duplex"); return nil }

// TestGuardedWriterKeepsItsInterfaces, by type assertion and by
// http.ResponseController.
func TestGuardedWriterKeepsItsInterfaces(t *testing.T) {
	g := newRig(t, plainOAuth)
	w := &everyWriter{ResponseRecorder: httptest.NewRecorder()}
	var want []string
	try := func(what string, err error) {
		t.Helper()
		if want = append(want, what); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := g.handler.ServeHTTP(w, g.request("GET", "/", with(g.session(""), script)...), NextFunc(func(w http.ResponseWriter, _ *http.Request) error {
		c := http.NewResponseController(w)
		try("read deadline", c.SetReadDeadline(time.Time{}))
		try("write deadline", c.SetWriteDeadline(time.Time{}))
		try("full duplex", c.EnableFullDuplex())
		try("push", w.(http.Pusher).Push("/x", nil))
		_, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader([]byte("file"))})
		try("read from", err)
		try("flush", c.Flush())
		w.(http.Flusher).Flush()
		try("flush", nil)
		_, _, err = c.Hijack()
		try("hijack", err)
		_, _, err = w.(http.Hijacker).Hijack()
		try("hijack", err)
		return nil
	}))

	if err != nil || !slices.Equal(w.done, want) {
		t.Errorf("%v: done was %q, want %q", err, w.done, want)
	}
}

// TestGuardedWriterGainsNoAbility: an ability that the underlying writer lacks is
// an error.
func TestGuardedWriterGainsNoAbility(t *testing.T) {
	g := newRig(t, plainOAuth)
	plain := struct{ http.ResponseWriter }{httptest.NewRecorder()}
	err := g.handler.ServeHTTP(plain, g.request("GET", "/", with(g.session(""), script)...), NextFunc(func(w http.ResponseWriter, _ *http.Request) error {
		c := http.NewResponseController(w)
		_, _, hijack := c.Hijack()
		for what, err := range map[string]error{
			"push": w.(http.Pusher).Push("/x", nil), "hijack": hijack, "flush": c.Flush(), "deadline": c.SetReadDeadline(time.Time{}),
		} {
			if !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		return nil
	}))

	if err != nil {
		t.Error(err)
	}
}

// FuzzOwnCookie: the guard recognizes every line after which a browser would send a
// cookie with one of the module's names.
func FuzzOwnCookie(f *testing.F) {
	for _, tt := range planted {
		f.Add(tt.line)
	}
	h := &Handler{Config: Config{Cookie: Cookie{Name: sessionCookie}, OtherCookies: func(*http.Request, string) []string { return []string{"__Host-other"} }}}
	f.Fuzz(func(t *testing.T, line string) {
		sent := browserCookie(line)
		var c cookies
		h.parseCookieLine(nil, sent, &c)
		if (c.present || len(c.logins) > 0) && !h.isOwnCookie(nil, line) {
			t.Errorf("%q passes, and the browser sends %q", line, sent)
		}
	})
}

// browserCookie returns the cookie that a lenient browser sends after a Set-Cookie
// line (RFC 6265bis, sections 5.6 and 5.8.3).
func browserCookie(line string) string {
	pair, _, _ := strings.Cut(strings.NewReplacer("\r", " ", "\n", " ").Replace(line), ";")
	name, value, ok := strings.Cut(pair, "=")
	if !ok {
		name, value = "", pair
	}
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if name == "" {
		return value
	}
	return name + "=" + value
}
