package handler

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzPostedResponse: no form makes the callback panic or log anyone in. Without the
// attempt's own state no code is sent.
func FuzzPostedResponse(f *testing.F) {
	g := newRig(f, plainOAuth, quiet, formPostMode)
	b := g.browser()
	at := b.start("/wanted")
	_, state, _ := strings.Cut(at, "state=")
	state, _, _ = strings.Cut(state, "&")
	cookies := b.jar.header(false)
	// Each fuzzing process has its own state, so the input has placeholders for it.
	own := strings.NewReplacer("STATE", state, "SHORT", state[:len(state)-12])
	for _, form := range []string{
		"code=x&state=SHORTaaaaaaaaaaaa", "code=x&state=xSTATE", "code=&state=STATE&state=STATE", "error=access_denied&state=STATE", "error=access_denied&iss=x&iss=y&state=STATE",
		"state=STATE", "code=x", "%zz;&&==", "error=%0d%0a&error_description=<script>&state=STATE", handOverField + "=STATE", handOverField + "=x&code=x",
		"code=x&state=SHORT&user=%7B%22name%22%3A%22a%22%7D", strings.Repeat("a=b&", 200),
	} {
		f.Add("application/x-www-form-urlencoded", form, "cross-site", true)
		f.Add("application/x-www-form-urlencoded; charset=utf-8", form, "same-origin", false)
	}
	f.Fuzz(func(t *testing.T, mediaType, template, site string, withCookies bool) {
		form := own.Replace(template)
		if withCookies && strings.Contains(form, state) {
			return // a response of its own is accepted: that is what the callback is for
		}
		r, err := readRequest("POST", "/oauth2/callback")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range navigation {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Set(name, value)
		}
		r.Header.Set("Content-Type", mediaType)
		r.Header.Set("Sec-Fetch-Site", site)
		r.Body = io.NopCloser(strings.NewReader(form))
		if withCookies {
			r.Header["Cookie"] = cookies
		}
		w := httptest.NewRecorder()
		if err := g.handler.ServeHTTP(w, r, NextFunc(g.app.serve)); err != nil {
			t.Fatal(err)
		}
		page := w.Code == http.StatusOK && postNow.MatchString(w.Body.String()) && strings.Contains(form, state[:len(state)-12])
		if !page && (w.Code < 400 || w.Header().Get("Location") != "") {
			t.Errorf("%q: got status %d to %q, want the hand-over page or an error page", form, w.Code, w.Header().Get("Location"))
		}
		if w.Header()["Set-Cookie"] != nil && strings.Contains(strings.Join(w.Header()["Set-Cookie"], ""), sessionCookie) || g.as.codesRedeemed() != 0 {
			t.Errorf("%q: got a session or a sent code, want neither", form)
		}
		if strings.Contains(w.Body.String(), "<script>") && !page {
			t.Errorf("%q: got a script on the page, want none", form)
		}
	})
}
