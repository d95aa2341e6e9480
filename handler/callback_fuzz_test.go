package handler

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzCallbackQuery: no query makes the callback panic or log anyone in. Without
// the attempt's own state no code is sent.
func FuzzCallbackQuery(f *testing.F) {
	g := newRig(f, plainOAuth, quiet)
	b := g.browser()
	at := b.start("/wanted")
	state := at[strings.Index(at, "state=")+len("state="):]
	state, _, _ = strings.Cut(state, "&")
	cookies := b.jar.header(false)
	// Each fuzzing process has its own state, so the input has placeholders for it.
	own := strings.NewReplacer("STATE", state, "SHORT", state[:len(state)-12])
	for _, template := range []string{
		"code=x&state=SHORTaaaaaaaaaaaa", "code=x&state=xSTATE", "code=&state=STATE&state=STATE", "error=access_denied&state=STATE", "error=access_denied&iss=x&iss=y&state=STATE",
		"error=login_required&state=STATE", "code=x&state=SHORT", "state=STATE", "code=x", "%zz;&&==", "error=%0d%0a&error_description=<script>&state=STATE",
	} {
		f.Add(template)
	}
	f.Fuzz(func(t *testing.T, template string) {
		query := own.Replace(template)
		r, err := readRequest("GET", "/oauth2/callback?"+query)
		if err != nil || strings.Contains(query, "code=") && strings.Contains(query, state) {
			return // a code of its own is redeemed: that is what the callback is for
		}
		for _, line := range navigation {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Set(name, value)
		}
		r.Header["Cookie"] = cookies
		w := httptest.NewRecorder()
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
			t.Fatal(err)
		}
		location := w.Header().Get("Location")
		switch {
		case w.Code == http.StatusFound && strings.HasPrefix(location, g.as.URL+"/authorize?"):
		case w.Code >= 400 && location == "":
		default:
			t.Errorf("%q: got status %d to %q, want a new login or an error page", query, w.Code, location)
		}
		if strings.Contains(strings.Join(w.Header()["Set-Cookie"], ""), sessionCookie) || g.as.codesRedeemed() != 0 {
			t.Errorf("%q: got a session or a sent code, want neither", query)
		}
	})
}
