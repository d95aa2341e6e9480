package handler

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// sharingOfAnswers has answers of an app, and the headers that are added to them.
var sharingOfAnswers = []struct {
	app     http.Header
	control []string // Cache-Control of an answer to a request with a session
	vary    []string // Vary of an answer to one without, where it is optional
}{
	{nil, []string{"private"}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {""}}, []string{"private"}, []string{"Cookie"}},
	{http.Header{"Expires": {"Thu, 01 Jan 2099 00:00:00 GMT"}}, []string{"private"}, []string{"Cookie"}},
	{http.Header{"Etag": {`"1"`}, "Last-Modified": {"Thu, 01 Jan 2026 00:00:00 GMT"}}, []string{"private"}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {"max-age=60"}}, []string{"max-age=60, private"}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {"max-age=60", "immutable"}}, []string{"max-age=60, immutable, private"}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {"no-cache"}}, []string{"no-cache, private"}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {"max-age=0, must-revalidate"}}, []string{"max-age=0, must-revalidate, private"}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {`private="Set-Cookie"`}}, []string{`private="Set-Cookie", private`}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {`no-cache="a, public", max-age=9`}}, []string{`no-cache="a, public", max-age=9, private`}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {`x="\", public`}}, []string{`x="\", public, private`}, []string{"Cookie"}},
	{http.Header{"Cache-Control": {"publicly, no-storey, s-maxage"}}, []string{"publicly, no-storey, s-maxage, private"}, []string{"Cookie"}},
	{http.Header{"Vary": {"Accept-Encoding"}}, []string{"private"}, []string{"Accept-Encoding", "Cookie"}},
	{http.Header{"Vary": {"Accept, cookie"}}, []string{"private"}, []string{"Accept, cookie"}},
	{http.Header{"Vary": {"*"}}, []string{"private"}, []string{"*"}},
	// The app has decided.
	{http.Header{"Cache-Control": {"public, max-age=60"}}, []string{"public, max-age=60"}, nil},
	{http.Header{"Cache-Control": {"max-age=60", "PUBLIC"}}, []string{"max-age=60", "PUBLIC"}, nil},
	{http.Header{"Cache-Control": {"s-maxage=60"}}, []string{"s-maxage=60"}, nil},
	{http.Header{"Cache-Control": {"s-maxage , s-maxage=60"}}, []string{"s-maxage , s-maxage=60"}, nil},
	{http.Header{"Cache-Control": {"no-store"}}, []string{"no-store"}, nil},
	{http.Header{"Cache-Control": {"private"}}, []string{"private"}, nil},
	{http.Header{"Cache-Control": {"max-age=0,private , must-revalidate"}}, []string{"max-age=0,private , must-revalidate"}, nil},
}

// TestSharedCachesKeepAnswersApart: a cache cannot see that a request gets a token,
// so the answer says so.
func TestSharedCachesKeepAnswersApart(t *testing.T) {
	for name, options := range map[string][]func(*setup){"": {plainOAuth, optional}, "retrying": {plainOAuth, optional, retrying}} {
		g := newRig(t, options...)
		cookie := g.session("")
		for _, tt := range sharingOfAnswers {
			given := tt.app.Clone()
			for how, answer := range map[string]func(http.ResponseWriter) error{
				"nothing":   func(http.ResponseWriter) error { return nil },
				"304":       func(w http.ResponseWriter) error { w.WriteHeader(http.StatusNotModified); return nil },
				"404":       func(w http.ResponseWriter) error { w.WriteHeader(http.StatusNotFound); return nil },
				"206":       func(w http.ResponseWriter) error { w.WriteHeader(http.StatusPartialContent); return nil },
				"Write":     func(w http.ResponseWriter) error { _, err := io.WriteString(w, "x"); return err },
				"ReadFrom":  func(w http.ResponseWriter) error { _, err := io.Copy(w, strings.NewReader("x")); return err },
				"Flush":     func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
				"an error":  func(http.ResponseWriter) error { return errors.New("bad gateway") },
				"two looks": func(w http.ResponseWriter) error { w.WriteHeader(200); _, err := io.WriteString(w, "x"); return err },
			} {
				g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
					for name, lines := range tt.app {
						w.Header()[name] = lines
					}
					return answer(w)
				}
				control, anonymousVary := tt.control, tt.vary
				if how == "304" && tt.app["Cache-Control"] == nil {
					control = nil
				}
				if how == "304" && tt.app["Vary"] == nil {
					anonymousVary = nil
				}
				for _, method := range []string{"GET", "HEAD", "POST"} {
					a := g.do(g.request(method, "/", with(cookie, script)...))
					if got := a.header["Cache-Control"]; !slices.Equal(got, control) || !slices.Equal(a.header["Vary"], tt.app["Vary"]) {
						t.Errorf("%s %s %s: with a session: of %v got Cache-Control %q, Vary %q, want those of the table", name, method, how, tt.app, got, a.header["Vary"])
					}
					a = g.do(g.request(method, "/", script...))
					vary := anonymousVary
					if method == "POST" {
						vary = tt.app["Vary"]
					}
					if got := a.header["Vary"]; !slices.Equal(got, vary) || !slices.Equal(a.header["Cache-Control"], tt.app["Cache-Control"]) {
						t.Errorf("%s %s %s: without a session: of %v got Vary %q, Cache-Control %q, want those of the table", name, method, how, tt.app, got, a.header["Cache-Control"])
					}
				}
			}
			for field, lines := range given {
				if !slices.Equal(tt.app[field], lines) {
					t.Errorf("got the app's slice changed to %q, want it unchanged", tt.app[field])
				}
			}
		}
	}
}

// TestNotModifiedKeepsTheStoredHeader: a cache updates its stored answer with the
// fields of a 304. Many apps send no Cache-Control with it, and their page must still
// be revalidated afterwards: the navigation after a logout has to reach the module.
func TestNotModifiedKeepsTheStoredHeader(t *testing.T) {
	for _, tt := range []struct {
		page, notModified http.Header
		// session and anonymous are the stored Cache-Control and Vary after the 304.
		session, anonymous [2]string
	}{
		{
			http.Header{"Cache-Control": {"no-cache"}, "Vary": {"Accept-Encoding"}}, http.Header{"Etag": {`"1"`}},
			[2]string{"no-cache, private", "Accept-Encoding"}, [2]string{"no-cache", "Accept-Encoding, Cookie"},
		},
		{
			http.Header{"Cache-Control": {"public, max-age=31536000, immutable"}}, http.Header{"Etag": {`"1"`}},
			[2]string{"public, max-age=31536000, immutable", ""}, [2]string{"public, max-age=31536000, immutable", ""},
		},
		{
			http.Header{"Cache-Control": {"max-age=60"}, "Vary": {"Accept"}}, http.Header{"Cache-Control": {"max-age=5"}, "Vary": {"Accept"}},
			[2]string{"max-age=5, private", "Accept"}, [2]string{"max-age=5", "Accept, Cookie"},
		},
		{
			http.Header{}, http.Header{"Cache-Control": {"no-cache"}},
			[2]string{"no-cache, private", ""}, [2]string{"no-cache", "Cookie"},
		},
	} {
		g := newRig(t, plainOAuth, optional)
		g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
			header, status := tt.page, http.StatusOK
			if r.Header.Get("If-None-Match") != "" {
				header, status = tt.notModified, http.StatusNotModified
			}
			for name, lines := range header {
				w.Header()[name] = lines
			}
			w.WriteHeader(status)
			return nil
		}
		for who, c := range map[string]struct {
			request []string
			want    [2]string
		}{"session": {with(g.session(""), script), tt.session}, "anonymous": {script, tt.anonymous}} {
			stored := g.get("/", c.request...).header.Clone()
			for name, lines := range g.get("/", append(slices.Clone(c.request), `If-None-Match: "1"`)...).header {
				stored[name] = lines
			}
			got := [2]string{strings.Join(stored["Cache-Control"], ", "), strings.Join(stored["Vary"], ", ")}
			if got != c.want {
				t.Errorf("%s: after a 304 with %v, the page %v has Cache-Control and Vary %q, want %q", who, tt.notModified, tt.page, got, c.want)
			}
		}
	}
}

// TestUnprotectedAnswersKeepTheirCaching: they do not depend on a session. An
// upgraded connection is not cacheable.
func TestUnprotectedAnswersKeepTheirCaching(t *testing.T) {
	g := newRig(t, plainOAuth, protecting("/private/"))
	cookie := g.session("")
	if a := g.get("/public", with(cookie, script)...); a.header["Cache-Control"] != nil || a.header["Vary"] != nil {
		t.Errorf("unprotected path: got header %v, want the app's", a.header)
	}
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusSwitchingProtocols)
		return nil
	}
	w := httptest.NewRecorder()
	r := g.request("GET", "/private/x", with(cookie, script)...)
	if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil || w.Header()["Cache-Control"] != nil {
		t.Errorf("status 101: got header %v, error %v, want the app's", w.Header(), err)
	}
}

// TestPreflightAnswersKeepTheirCaching: they do not depend on a session.
func TestPreflightAnswersKeepTheirCaching(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.TrustedOrigins = []string{"https://other.test"} })
	r := g.request("OPTIONS", "/", "Origin: https://other.test", "Access-Control-Request-Method: POST", "Sec-Fetch-Mode: cors", "Sec-Fetch-Site: cross-site")
	if a := g.do(r); a.relayed != 1 || a.header["Vary"] != nil || a.header["Cache-Control"] != nil {
		t.Errorf("got %d calls of the app, header %v, want the app's", a.relayed, a.header)
	}
}
