package handler

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkRelay is what the module adds to a request with a session.
func BenchmarkRelay(b *testing.B) {
	g := newRig(b, plainOAuth)
	r := g.request("GET", "/api", append(script, "Cookie: a=1; "+sessionCookie+"="+g.session(`{"email":"a@b"}`))...)
	w := httptest.NewRecorder()
	next := func(http.ResponseWriter, *http.Request) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := g.handler.ServeHTTP(w, r, next); err != nil {
			b.Fatal(err)
		}
	}
	if w.Code != http.StatusOK {
		b.Fatal(w.Code)
	}
}
