package handler

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// FuzzLoginCookie: a code is redeemed once, and only for the browser with the
// attempt's own cookie.
func FuzzLoginCookie(f *testing.F) {
	g := newRig(f, plainOAuth, quiet)
	b := g.browser()
	callback := b.approve(b.start("/wanted"))
	logins := b.jar.logins()
	if len(logins) != 1 {
		f.Fatalf("got %d login cookies, want 1", len(logins))
	}
	name, value := logins[0].Name, logins[0].Value
	other := newRig(f, plainOAuth, quiet).browser()
	other.start("/x")
	foreign := other.jar.logins()[0]
	// Each fuzzing process has its own cookies, so the input has placeholders for
	// them.
	own := strings.NewReplacer("NAME", name, "VALUE", value, "SHORT", value[:len(value)-1], "ALIEN", foreign.Name, "STRANGE", foreign.Value)
	for _, line := range []string{
		"", "NAME=SHORT", "NAME=SHORTA", "NAME=VALUE=", "NAMEx=VALUE", " =NAME=VALUE", `NAME="VALUE"`, "NAME=STRANGE", "ALIEN=VALUE", "NAME=VALUE; NAME=x", "NAME=x; NAME=VALUE",
		"NAME=VALUE; NAME=VALUE", sessionCookie + "=VALUE", "$Version=1; NAME=SHORT", "NAME VALUE", "\u2000NAME=VALUE", "NAME=VALUE\x00", "NAME =VALUE", "NAME= VALUE", "NAME=VAL\nUE",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, template string) {
		line := own.Replace(template)
		var values []string
		for pair := range strings.SplitSeq(line, ";") {
			if n, v, _ := strings.Cut(strings.Trim(pair, " \t"), "="); n == name {
				values = append(values, v)
			}
		}
		if slices.Equal(values, []string{value}) {
			return // its own cookie, alone: that is what the callback is for
		}
		r, err := readRequest("GET", callback)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range navigation {
			name, value, _ := strings.Cut(l, ": ")
			r.Header.Set(name, value)
		}
		r.Header["Cookie"] = []string{line}
		redeemed, w := g.as.codesRedeemed(), httptest.NewRecorder()
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
			t.Fatal(err)
		}
		if g.as.codesRedeemed() != redeemed {
			t.Fatalf("%q: got a sent code, want none", line)
		}
		for _, c := range w.Result().Cookies() {
			if c.Name == sessionCookie && c.MaxAge >= 0 {
				t.Errorf("%q: got a session, want none", line)
			}
		}
	})
}

// FuzzRelayedHeader: whatever header a client adds, the app gets exactly the
// session's token under its name, and no header that another server could read as
// it. The request has its former header afterwards.
func FuzzRelayedHeader(f *testing.F) {
	for _, h := range [][2]string{
		{"X-Access-Token", "EVIL"}, {"X_Access_Token", "EVIL"}, {"x.access-token", "EVIL"}, {"X-Access-Token ", "EVIL"}, {"Authorization", "Bearer EVIL"}, {"authorization", "x"},
		{"Connection", "x-access-token, close"}, {"Connection", "Upgrade, X-Access-Token"}, {"Upgrade", "h2c"}, {"Upgrade", "websocket"}, {"Upgrade", "WebSocket, h2c"}, {"Proxy-Connection", "x-access-token"},
		{"Cookie", sessionCookie + "=x"}, {"X-Access-Tokeſ", "long s"}, {"Trailer", "X-Access-Token"}, {"Te", "trailers"},
	} {
		f.Add(h[0], h[1])
	}
	g := newRig(f, plainOAuth, quiet, func(s *setup) { s.handler.HeaderName = "X-Access-Token" })
	cookie := sessionCookie + "=" + g.session("")
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "Cookie" || name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") || strings.ContainsAny(value, "\r\n\x00") {
			return // other targets' business, or nothing that net/http hands on
		}
		r, err := readRequest("GET", "/app")
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Cookie"] = []string{cookie}
		r.Header[name] = append(r.Header[name], value)
		before := r.Header.Clone()
		asked := false
		err = g.handler.ServeHTTP(httptest.NewRecorder(), r, NextFunc(func(_ http.ResponseWriter, r *http.Request) error {
			asked = true
			checkRelayedHeader(t, [2]string{name, value}, r.Header)
			return nil
		}))

		if err != nil || !asked {
			t.Errorf("%q: %q: got asked %v, error %v, want the app called", name, value, asked, err)
		}
		delete(before, "Cookie")
		delete(r.Header, "Cookie")
		for n, values := range before {
			if !slices.Equal(r.Header[n], values) {
				t.Errorf("%q: got %q after the request, want %q", n, r.Header[n], values)
			}
		}
		if len(before) != len(r.Header) {
			t.Errorf("got header %v after the request, want %v", r.Header, before)
		}
	})
}

// checkRelayedHeader checks the header that the app got, when the client has sent one.
func checkRelayedHeader(t *testing.T, sent [2]string, header http.Header) {
	t.Helper()
	var tokens []string
	for name, values := range header {
		if asCGI(name) == "X_ACCESS_TOKEN" {
			tokens = append(tokens, values...)
		}
	}
	if !slices.Equal(tokens, []string{"Bearer AT_made_by_hand"}) {
		t.Errorf("%q: got tokens %q at the app, want the session's only", sent, tokens)
	}
	if header["Authorization"] != nil || header["Cookie"] != nil {
		t.Errorf("%q: got header %v at the app, want no value of the client", sent, header)
	}
	upgrade := header.Get("Upgrade")
	for _, c := range header["Connection"] {
		if c != "Upgrade" && !strings.EqualFold(c, "upgrade") || upgrade == "" {
			t.Errorf("%q: got Connection %q, want Upgrade for WebSocket only", sent, c)
		}
	}
	if upgrade != "" && !strings.EqualFold(upgrade, "websocket") {
		t.Errorf("%q: got Upgrade %q, want websocket only", sent, upgrade)
	}
}

// asCGI returns the name that an app behind CGI sees for a header.
func asCGI(name string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
			return c
		}
		return '_'
	}, name)
}
