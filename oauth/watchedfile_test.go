package oauth

import (
	"crypto/ecdsa"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestChangedKeyFileTakesEffectWhenItIsComplete: a content that was written a moment ago
// may be half of it, and waits. A bad content never replaces a good one, and
// CheckCredentials names the option and the file.
func TestChangedKeyFileTakesEffectWhenItIsComplete(t *testing.T) {
	path := keyFileOf(t, pkcs8(keyA()))
	c := newServer(t, "https://idp.test").client(withKey(path))
	want := func(step, id string, problem string) {
		t.Helper()
		if got := c.KeyIDs(); len(got) == 0 || got[0] != id {
			t.Errorf("%s: got key %v, want %s", step, got, id)
		}
		err := c.CheckCredentials()
		if problem == "" && err != nil {
			t.Errorf("%s: got error %v, want none", step, err)
		}
		if problem != "" && (err == nil || !strings.Contains(err.Error(), "client_key "+path+": ") || !strings.Contains(err.Error(), problem)) {
			t.Errorf("%s: got error %v, want the option, the file and %q", step, err, problem)
		}
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, b := thumbprint(keyA()), thumbprint(keyB())
	want("start", a, "")
	write(pkcs8(keyB())) // the second key of the file is not written yet
	want("a moment ago", a, "")
	settle(t, path)
	want("a while ago", b, "")
	write(pkcs8(keyA())[:60])
	want("half a moment ago", b, "")
	settle(t, path)
	want("half a while ago", b, "damaged or incomplete")
	replaceFile(t, path, pkcs8(weakRSA()))
	want("weak", b, "1024 bits")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("removed", b, "no such file")
	replaceFile(t, path, pkcs8(keyA()))
	want("repaired", a, "")
	// A file of a server whose clock is ahead.
	write(pkcs8(keyB()))
	ahead := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, ahead, ahead); err != nil {
		t.Fatal(err)
	}
	want("in the future", b, "")
}

// TestUnchangedFileIsNotReadAgain: its parsing would check each key again.
func TestUnchangedFileIsNotReadAgain(t *testing.T) {
	reads := 0
	path := keyFileOf(t, "content")
	f := &watchedFile[int]{option: "o", path: path, limit: 100, parse: func([]byte) (int, error) { reads++; return reads, nil }}
	for range 10 {
		if _, loaded, err := f.current(); !loaded || err != nil {
			t.Fatalf("got loaded %v, error %v", loaded, err)
		}
	}
	replaceFile(t, path, "content")
	_, _, _ = f.current()
	if reads != 2 {
		t.Errorf("got %d reads of two contents, want 2", reads)
	}
}

// rotatingServer grants every refresh whose assertion one of the registered keys has
// signed and that it has not seen.
type rotatingServer struct {
	*server
	mu     sync.Mutex
	keys   []jose.JSONWebKey
	seen   map[any]bool
	signed map[any]int // by kid
	failed atomic.Int32
}

func (s *rotatingServer) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	defer s.mu.Unlock()
	got, err := verifyAssertion(r.PostForm, s.keys)
	jti := got.claims["jti"]
	if err != nil || s.seen[jti] {
		s.t.Errorf("got error %v, jti %v (seen: %v); want a new assertion", err, jti, s.seen[jti])
	}
	s.seen[jti] = true
	s.signed[got.header["kid"]]++
	writeJSON(w, map[string]any{"access_token": "at", "token_type": "Bearer"})
}

func (s *rotatingServer) signedBy(kid string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signed[kid]
}

// TestKeyRotationUnderLoadFailsNoRequest: the file is replaced by rename and in place,
// in pieces, while requests run. Each key takes effect.
func TestKeyRotationUnderLoadFailsNoRequest(t *testing.T) {
	s := &rotatingServer{server: startServer(t), seen: map[any]bool{}, signed: map[any]int{}}
	for _, k := range []*ecdsa.PrivateKey{keyA(), keyB()} {
		s.keys = append(s.keys, jose.JSONWebKey{Key: k.Public(), KeyID: thumbprint(k)})
	}
	s.handle("/token", s.token)
	path := keyFileOf(t, pkcs8(keyA()))
	c := s.client(withKey(path))
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 8 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil {
					s.failed.Add(1)
					t.Errorf("got error %v, want none", err)
					return
				}
				if n := len(publishedKeys(t, c)); n == 0 {
					t.Errorf("got no published key, want one or two")
				}
			}
		})
	}
	keys := []*ecdsa.PrivateKey{keyA(), keyB()}
	for i := 1; i <= 6 && s.failed.Load() == 0; i++ {
		next, former := keys[i%2], keys[(i+1)%2]
		before := s.signedBy(thumbprint(next))
		content := pkcs8(next) + pkcs8(former)
		if i%3 == 0 {
			replaceFile(t, path, content)
		} else {
			writeInPieces(t, path, content)
		}
		for deadline := time.Now().Add(time.Minute); s.signedBy(thumbprint(next)) == before && s.failed.Load() == 0; {
			if time.Now().After(deadline) {
				t.Fatalf("rotation %d: got no assertion of the new key", i)
			}
			time.Sleep(time.Millisecond)
		}
	}
	close(stop)
	load.Wait()
}

// writeInPieces writes a file in place. It is complete and settled at the end.
func writeInPieces(t *testing.T, path, content string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, piece := range strings.SplitAfter(content, "\n") {
		if _, err := fmt.Fprint(file, piece); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	settle(t, path)
}
