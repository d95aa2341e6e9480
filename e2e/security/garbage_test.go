package security

import (
	"encoding/base64"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// garbagePost returns a random body and a content type for it.
func garbagePost(r *rand.Rand) (contentType, body string) {
	noise := make([]byte, r.IntN(2000))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	text := base64.RawURLEncoding.EncodeToString(noise)
	switch r.IntN(8) {
	case 0:
		return "application/x-www-form-urlencoded", string(noise)
	case 1:
		return "application/x-www-form-urlencoded", "logout_token=" + text + "." + text + "." + text + "&code=" + text + "&state=" + text
	case 2:
		return "application/x-www-form-urlencoded", strings.Repeat("%", 1+r.IntN(2000)) + "&" + strings.Repeat("a=b&", r.IntN(2000))
	case 3:
		return "application/json", strings.Repeat(`{"a":[`, 1+r.IntN(2000))
	case 4:
		return "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"logout_token\"\r\n\r\n" + string(noise)
	case 5:
		return "multipart/form-data; boundary=" + text, text
	case 6:
		return ";;;=", strings.Repeat(text, 1+r.IntN(20)) // up to 50 KB
	}
	return "text/plain", "\x00\xff" + string(noise)
}

// TestS125GarbagePostsAreHarmless: random bodies posted to every endpoint, without cookies
// or with made-up ones, cause no 5xx, no memory growth and no end of a session.
func TestS125GarbagePostsAreHarmless(t *testing.T) {
	w := shared(t)
	loggedIn := w.browser()
	loggedIn.login(t, "/")
	memory := w.instances[0].metric(t, "process_resident_memory_bytes")
	n := amount(200, 10_000)
	var running sync.WaitGroup
	for worker, path := range []string{login, callback, logout, logoutCallback, sessionInfo, refresh, backchannel, prefix + "/none", "/app"} {
		running.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 0))
			b := w.newBrowser(w.instances[0], true)
			for i := range n {
				contentType, body := garbagePost(r)
				lines := []string{"Content-Type: " + contentType}
				if r.IntN(2) == 0 {
					lines = append(lines, "Cookie: "+sessionCookie+"="+base64.RawURLEncoding.EncodeToString([]byte(body[:min(len(body), 33)]))+"; "+loginCookie+"x="+contentType)
				}
				resp, err := b.trySend(t.Context(), http.MethodPost, path, body, lines...)
				if err != nil || resp.Status == http.StatusOK && path != logout || resp.Status >= http.StatusInternalServerError {
					t.Errorf("post %d to %s: got %v, %v", i, path, resp, err)
					return
				}
			}
		})
	}
	running.Wait()
	if grown := w.instances[0].metric(t, "process_resident_memory_bytes") - memory; grown > 64<<20 {
		t.Errorf("memory grew by %.0f MiB, want at most 64", grown/(1<<20))
	}
	loggedIn.checkSession(t)
}
