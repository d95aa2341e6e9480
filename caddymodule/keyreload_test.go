package caddymodule

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
type keyFileTest struct {
	t    *testing.T
	file string
	site *seal.Site
	logs *zapobserver.ObservedLogs
}

// testKeyFile runs a test on a file that holds keys at first.
func testKeyFile(t *testing.T, keys []seal.Key, f func(w *keyFileTest)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		core, logs := zapobserver.New(zapcore.DebugLevel)
		w := &keyFileTest{t: t, file: filepath.Join(dir, "keys"), logs: logs}
		w.write(encodeKeys(keys...))
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

func encodeKeys(keys ...seal.Key) string {
	var text strings.Builder
	for _, k := range keys {
		text.WriteString(k.Encode() + "\n")
	}
	return text.String()
}

func (w *keyFileTest) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// replace is what a careful tool does.
func (w *keyFileTest) replaceAtomically(text string) {
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
func (w *keyFileTest) waitForReload() {
	time.Sleep(keyReloadEvery + 2*keySettle)
	synctest.Wait()
}

// opens checks which of the login cookies that single keys have sealed open.
func (w *keyFileTest) wantKeys(want ...seal.Key) {
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
func (w *keyFileTest) wantLogLevels(want ...string) {
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

func TestChangedKeyFileIsReloaded(t *testing.T) {
	testKeyFile(t, []seal.Key{keyA}, func(w *keyFileTest) {
		w.wantKeys(keyA)
		w.replaceAtomically(encodeKeys(keyB, keyA))
		w.waitForReload()
		w.wantKeys(keyA, keyB)
		w.wantLogLevels("info")
		w.write(encodeKeys(keyB)) // in place does as well
		w.waitForReload()
		w.wantKeys(keyB)
		w.wantLogLevels("info")
		w.waitForReload()
		w.wantLogLevels()
	})
}

// What is no list of keys is refused once, and the keys before it stay until it
// is put right.
func TestInvalidKeyFileKeepsPreviousKeys(t *testing.T) {
	tests := map[string]func(w *keyFileTest){
		"emptied":        func(w *keyFileTest) { w.write("") },
		"white space":    func(w *keyFileTest) { w.write(" \n\n") },
		"deleted":        func(w *keyFileTest) { _ = os.Remove(w.file) },
		"half a key":     func(w *keyFileTest) { w.write(keyB.Encode()[:20]) },
		"half a second":  func(w *keyFileTest) { w.write(encodeKeys(keyB) + keyA.Encode()[:42]) },
		"one key twice":  func(w *keyFileTest) { w.write(encodeKeys(keyB, keyA, keyB)) },
		"something else": func(w *keyFileTest) { w.write("-----BEGIN PRIVATE KEY-----\n" + encodeKeys(keyB)) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			testKeyFile(t, []seal.Key{keyA, keyC}, func(w *keyFileTest) {
				spoil(w)
				for range 3 {
					w.waitForReload()
				}
				w.wantKeys(keyA, keyC)
				w.wantLogLevels("error")
				w.replaceAtomically(encodeKeys(keyB, keyA))
				w.waitForReload()
				w.wantKeys(keyA, keyB)
				w.wantLogLevels("info")
			})
		})
	}
}

// A file that is just being written may look like a list of keys.
func TestChangingKeyFileIsNotLoaded(t *testing.T) {
	testKeyFile(t, []seal.Key{keyA}, func(w *keyFileTest) {
		time.Sleep(keyReloadEvery - time.Millisecond)
		w.write(encodeKeys(keyB))
		time.Sleep(keySettle / 2) // it has been seen
		w.write(encodeKeys(keyB, keyA))
		time.Sleep(keySettle)
		synctest.Wait()
		w.wantKeys(keyA)
		w.waitForReload()
		w.wantKeys(keyA, keyB)
		w.wantLogLevels("info")
	})
}

// announcingModule is a store that takes notes, as one that is shared does.
type announcingModule struct{}

func (announcingModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: storesNamespace + "test_notes", New: func() caddy.Module { return new(announcingModule) }}
}

func (*announcingModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { return unmarshalStore(d, nil) }

func (*announcingModule) StoreID() string { return "test_notes" }
func (*announcingModule) Shared() bool    { return true }

func (*announcingModule) OpenStore() (session.Store, error) {
	return &announcingStore{Store: memory.New()}, nil
}

// announcingStore is used by one process, so there is nothing to share but notes.
type announcingStore struct {
	session.SharedStore // nil: leases are not asked for
	*memory.Store
}

var announcements announcementLog

type announcementLog struct {
	mu    sync.Mutex
	notes [][]byte
}

func (n *announcementLog) all() [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.notes)
}

func (n *announcementLog) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = nil
}

func (s *announcingStore) Watch(func([]session.ID)) {}

func (s *announcingStore) Announce(_ context.Context, _ session.Topic, _ session.Holder, note []byte) ([][]byte, error) {
	announcements.mu.Lock()
	defer announcements.mu.Unlock()
	announcements.notes = append(announcements.notes, slices.Clone(note))
	return [][]byte{note}, nil
}

func (s *announcingStore) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.Store.View(ctx, id, f)
}

func (s *announcingStore) Create(ctx context.Context, id session.ID, item session.Item) error {
	return s.Store.Create(ctx, id, item)
}

func (s *announcingStore) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return s.Store.Replace(ctx, id, item)
}

func (s *announcingStore) Delete(ctx context.Context, id session.ID) error { return s.Store.Delete(ctx, id) }

func (s *announcingStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return s.Store.Tagged(ctx, tag)
}

// A running configuration announces its keys, watches their files, and takes
// leave; one that is only validated does nothing of it.
func TestOnlyRunningConfigurationAnnouncesKeys(t *testing.T) {
	w := newWorld(t)
	announcements.reset()
	file := filepath.Join(t.TempDir(), "keys")
	t.Setenv("KEY_FILE", file)
	if err := os.WriteFile(file, []byte(encodeKeys(keyB, keyA)), 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\n")
	text.WriteString("store test_notes\nkey {file.{$KEY_FILE}}\n}\nreverse_proxy {$APP}\n}\n")
	if err := w.validate(text.String()); err != nil {
		t.Fatal(err)
	}
	if n := len(announcements.all()); n > 0 {
		t.Errorf("validating wrote %d notes", n)
	}
	w.load(text.String())
	if line := captured.wait(t, "this key seals sessions from now on"); !strings.Contains(line, keyB.ID()) {
		t.Errorf("the log names another key than %s: %s", keyB.ID(), line)
	}
	if a := newBrowser(t, w.origin).visit("/"); a.status == http.StatusInternalServerError {
		t.Errorf("a visit: status %d", a.status)
	}
	if err := os.WriteFile(file, []byte(encodeKeys(keyC, keyB, keyA)), 0o600); err != nil {
		t.Fatal(err)
	}
	if line := captured.wait(t, "keys replaced"); !strings.Contains(line, keyC.ID()) {
		t.Errorf("the log does not name key %s: %s", keyC.ID(), line)
	}
	captured.wait(t, "this key seals sessions from now on", keyC.ID())
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	notes := announcements.all()
	if n := len(notes); n < 3 || len(notes[n-1]) >= len(notes[0]) {
		t.Errorf("%d notes, and the last of %d bytes takes no leave", n, len(notes[n-1]))
	}
	w.wantNoSecrets("the log", captured.String(), keyA.Encode(), keyB.Encode(), keyC.Encode())
}
