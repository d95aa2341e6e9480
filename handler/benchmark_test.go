package handler

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkRelay measures the cost of the module for a request with a session.
func BenchmarkRelay(b *testing.B) {
	g := newRig(b, plainOAuth)
	r := g.request("GET", "/api", append(script, "Cookie: a=1; "+sessionCookie+"="+g.session(`{"email":"a@b"}`))...)
	cookie := r.Header["Cookie"]
	w := httptest.NewRecorder()
	body := []byte("the app's answer")
	next := func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(body)
		return err
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Header["Cookie"] = cookie // ours are taken off for good
		w.Body.Reset()
		if err := g.handler.ServeHTTP(w, r, NextFunc(next)); err != nil {
			b.Fatal(err)
		}
	}
	if w.Code != http.StatusOK {
		b.Fatal(w.Code)
	}
}

// BenchmarkCookieGuard measures the cost of the cookie guard for an answer with a
// cookie.
func BenchmarkCookieGuard(b *testing.B) {
	h := &Handler{Config: Config{Cookie: Cookie{Name: sessionCookie}}}
	r := httptest.NewRequest(http.MethodGet, "https://app.test/", nil)
	w := httptest.NewRecorder()
	w.Header().Set("Set-Cookie", "app=1; Path=/; Secure; HttpOnly; SameSite=Lax")
	b.ReportAllocs()
	for b.Loop() {
		guard := h.guardCookies(w, r)
		guard.WriteHeader(http.StatusOK)
		_, _ = guard.Write(nil)
		guard.finish()
	}
}
