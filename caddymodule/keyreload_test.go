package caddymodule

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	zapobserver "go.uber.org/zap/zaptest/observer"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// watched is a key file with somebody who reads it again.
type watched struct {
	t    *testing.T
	file string
	site *seal.Site
	logs *zapobserver.ObservedLogs
}

// inWatch runs a test on a file that holds keys at first.
func inWatch(t *testing.T, keys []seal.Key, f func(w *watched)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		core, logs := zapobserver.New(zapcore.DebugLevel)
		w := &watched{t: t, file: filepath.Join(dir, "keys"), logs: logs}
		w.write(lines(keys...))
		text := "{file." + w.file + "}"
		e := newExpander()
		texts := e.texts("key", []string{text})
		ring, err := parseKeys(texts)
		if err != nil || e.err != nil {
			t.Fatal(err, e.err)
		}
		w.site = seal.NewSite(ring, "issuer", "client", "cookie")
		work := &keyTasks{}
		work.add(newKeyReloader([]string{text}, texts, w.site, zap.New(core)).run)
		work.start()
		defer work.stop()
		f(w)
	})
}

func lines(keys ...seal.Key) string {
	var text strings.Builder
	for _, k := range keys {
		text.WriteString(k.Encode() + "\n")
	}
	return text.String()
}

func (w *watched) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// replace is what a careful tool does.
func (w *watched) replace(text string) {
	w.t.Helper()
	temp := w.file + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(temp, w.file); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets the watch look once, and a change settle.
func (w *watched) pass() {
	time.Sleep(keyReloadEvery + 2*keySettle)
	synctest.Wait()
}

// opens checks which of the login cookies that single keys have sealed open.
func (w *watched) opens(want ...seal.Key) {
	w.t.Helper()
	for i, key := range allKeys {
		ring, err := seal.NewKeyRing(key)
		if err != nil {
			w.t.Fatal(err)
		}
		cookie, err := seal.NewSite(ring, "issuer", "client", "cookie").SealForBrowser("login", []byte("x"))
		if err != nil {
			w.t.Fatal(err)
		}
		if _, ok := w.site.OpenFromBrowser("login", cookie); ok != slices.Contains(want, key) {
			w.t.Errorf("what key %d has sealed opens: %v", i, ok)
		}
	}
}

// logged checks the messages of one level, by how they begin, since the last
// time.
func (w *watched) logged(want ...string) {
	w.t.Helper()
	var got []string
	for _, entry := range w.logs.TakeAll() {
		got = append(got, entry.Level.String())
		for _, key := range allKeys {
			if strings.Contains(entry.Message, key.Encode()) || strings.Contains(zapText(entry), key.Encode()) {
				w.t.Errorf("a key is in the log: %s", entry.Message)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("logged (-want +got):\n%s", diff)
	}
}

func zapText(entry zapobserver.LoggedEntry) string {
	b, err := zapcore.NewJSONEncoder(zapcore.EncoderConfig{}).EncodeEntry(entry.Entry, entry.Context)
	if err != nil {
		return ""
	}
	return b.String()
}

var (
	keyA, keyB, keyC = seal.NewKey(), seal.NewKey(), seal.NewKey()
	allKeys          = []seal.Key{keyA, keyB, keyC}
)

func TestKeyFileIsReadAgain(t *testing.T) {
	inWatch(t, []seal.Key{keyA}, func(w *watched) {
		w.opens(keyA)
		w.replace(lines(keyB, keyA))
		w.pass()
		w.opens(keyA, keyB)
		w.logged("info")
		w.write(lines(keyB)) // in place does as well
		w.pass()
		w.opens(keyB)
		w.logged("info")
		w.pass()
		w.logged()
	})
}

// What is no list of keys is refused once, and the keys before it stay until it
// is put right.
func TestBadKeyFileIsRefused(t *testing.T) {
	tests := map[string]func(w *watched){
		"emptied":        func(w *watched) { w.write("") },
		"white space":    func(w *watched) { w.write(" \n\n") },
		"deleted":        func(w *watched) { _ = os.Remove(w.file) },
		"half a key":     func(w *watched) { w.write(keyB.Encode()[:20]) },
		"half a second":  func(w *watched) { w.write(lines(keyB) + keyA.Encode()[:42]) },
		"one key twice":  func(w *watched) { w.write(lines(keyB, keyA, keyB)) },
		"something else": func(w *watched) { w.write("-----BEGIN PRIVATE KEY-----\n" + lines(keyB)) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			inWatch(t, []seal.Key{keyA, keyC}, func(w *watched) {
				spoil(w)
				for range 3 {
					w.pass()
				}
				w.opens(keyA, keyC)
				w.logged("error")
				w.replace(lines(keyB, keyA))
				w.pass()
				w.opens(keyA, keyB)
				w.logged("info")
			})
		})
	}
}

// A file that is just being written may look like a list of keys.
func TestHalfWrittenKeyFileWaits(t *testing.T) {
	inWatch(t, []seal.Key{keyA}, func(w *watched) {
		time.Sleep(keyReloadEvery - time.Millisecond)
		w.write(lines(keyB))
		time.Sleep(keySettle / 2) // it has been seen
		w.write(lines(keyB, keyA))
		time.Sleep(keySettle)
		synctest.Wait()
		w.opens(keyA)
		w.pass()
		w.opens(keyA, keyB)
		w.logged("info")
	})
}

// sharedModule is a store that takes notes, as one that is shared does.
type sharedModule struct{}

func (sharedModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: storesNamespace + "test_notes", New: func() caddy.Module { return new(sharedModule) }}
}

func (*sharedModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return unmarshalStore(d, nil) }

func (*sharedModule) StoreID() string { return "test_notes" }
func (*sharedModule) Shared() bool    { return true }

func (*sharedModule) OpenStore() (session.Store, error) {
	return &noteStore{Store: memory.New()}, nil
}

// noteStore is used by one process, so there is nothing to share but notes.
type noteStore struct {
	session.SharedStore // nil: leases are not asked for
	*memory.Store
}

var taken notesTaken

type notesTaken struct {
	mu     sync.Mutex
	notes  [][]byte
	frozen atomic.Bool // the store does not answer
}

func (n *notesTaken) all() [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.notes)
}

func (n *notesTaken) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = nil
}

func (s *noteStore) Watch(func([]session.ID)) {}

func (s *noteStore) Announce(ctx context.Context, _ session.Topic, _ session.Holder, note []byte) ([][]byte, error) {
	if taken.frozen.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	taken.mu.Lock()
	defer taken.mu.Unlock()
	taken.notes = append(taken.notes, slices.Clone(note))
	return [][]byte{note}, nil
}

func (s *noteStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.Store.View(ctx, id, f)
}

func (s *noteStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.Store.Create(ctx, id, item)
}

func (s *noteStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.Store.Replace(ctx, id, item)
}

func (s *noteStore) Delete(ctx context.Context, id session.ID) error { return s.Store.Delete(ctx, id) }

func (s *noteStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return s.Store.Tagged(ctx, tag)
}

// A running configuration announces its keys, watches their files, and takes
// leave; one that is only validated does nothing of it.
func TestKeysOfARunningConfiguration(t *testing.T) {
	w := newWorld(t)
	taken.reset()
	file := filepath.Join(t.TempDir(), "keys")
	t.Setenv("KEY_FILE", file)
	if err := os.WriteFile(file, []byte(lines(keyB, keyA)), 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\n")
	text.WriteString("store test_notes\nkey {file.{$KEY_FILE}}\n}\nreverse_proxy {$APP}\n}\n")
	if err := w.validate(text.String()); err != nil {
		t.Fatal(err)
	}
	if n := len(taken.all()); n > 0 {
		t.Errorf("validating wrote %d notes", n)
	}
	w.load(text.String())
	if line := captured.wait(t, "this key seals sessions from now on"); !strings.Contains(line, keyB.ID()) {
		t.Errorf("the log names another key than %s: %s", keyB.ID(), line)
	}
	if a := newBrowser(t, w.origin).visit("/"); a.status == http.StatusInternalServerError {
		t.Errorf("a visit: status %d", a.status)
	}
	if err := os.WriteFile(file, []byte(lines(keyC, keyB, keyA)), 0o600); err != nil {
		t.Fatal(err)
	}
	if line := captured.wait(t, "keys replaced"); !strings.Contains(line, keyC.ID()) {
		t.Errorf("the log does not name key %s: %s", keyC.ID(), line)
	}
	captured.wait(t, "this key seals sessions from now on", keyC.ID())
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	notes := taken.all()
	if n := len(notes); n < 3 || len(notes[n-1]) >= len(notes[0]) {
		t.Errorf("%d notes, and the last of %d bytes takes no leave", n, len(notes[n-1]))
	}
	w.noSecrets("the log", captured.String(), keyA.Encode(), keyB.Encode(), keyC.Encode())
}
