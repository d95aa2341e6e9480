package handler

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzLogoutRequest: a logout request without a valid signature is refused, ends no
// session, and is never answered with a server error.
func FuzzLogoutRequest(f *testing.F) {
	const form = "application/x-www-form-urlencoded"
	for _, body := range []string{
		"", "logout_token=", "logout_token=a.b.c", "logout_token=x&logout_token=y", "logout_token=%zz", "a=b", "logout_token=" + strings.Repeat(".", 20<<10),
		"logout_token=eyJhbGciOiJub25lIn0.e30.", "logout_token=eyJhbGciOiJFUzI1NiIsInR5cCI6ImxvZ291dCtqd3QifQ.e30.AAAA", "LOGOUT_TOKEN=x", "logout_token[]=x;logout_token=y",
	} {
		f.Add(form, []byte(body))
	}
	f.Add("application/json", []byte(`{"logout_token":"x"}`))
	f.Add("multipart/form-data; boundary=x", []byte("--x--"))
	f.Add(form+"; charset=\"", []byte("logout_token=x"))
	f.Add("", []byte("logout_token=x"))
	g := newRig(f, quiet)
	cookie := sessionCookie + "=" + g.session("")
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/oauth2"+backchannelPath, strings.NewReader(string(body)))
		r.Header["Content-Type"] = []string{contentType}
		w := httptest.NewRecorder()
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusBadRequest || w.Header().Get("Cache-Control") != "no-store" || w.Header()["Set-Cookie"] != nil {
			t.Errorf("got %q, %.100q: got status %d, want 400, header %v", contentType, body, w.Code, w.Header())
		}
		r, err := readRequest(http.MethodGet, "/oauth2/session")
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Cookie"] = []string{cookie}
		w = httptest.NewRecorder()
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil || !strings.Contains(w.Body.String(), `"authenticated":true`) {
			t.Fatalf("%q, %.100q: got %s, %v, want the session kept", contentType, body, w.Body, err)
		}
	})
}
