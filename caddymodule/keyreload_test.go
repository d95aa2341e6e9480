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

// keyFileTest is a key file with a running reloader.
type keyFileTest struct {
	t    *testing.T
	file string
	site *seal.Site
	logs *zapobserver.ObservedLogs
}

// testKeyFile runs a test in a synctest bubble, with a file that holds keys.
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

// replaceAtomically writes another file and renames it.
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

// waitForReload waits for one check of the file and the time in which a change settles.
func (w *keyFileTest) waitForReload() {
	time.Sleep(keyReloadEvery + 2*keySettle)
	synctest.Wait()
}

// wantKeys checks for each of allKeys whether the site opens login cookies sealed with it.
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
			w.t.Errorf("key %d: got cookie opened %v, want %v", i, ok, !ok)
		}
	}
}

// wantLogLevels checks the levels of the messages since the last call. No message may
// hold a key.
func (w *keyFileTest) wantLogLevels(want ...string) {
	w.t.Helper()
	var got []string
	for _, entry := range w.logs.TakeAll() {
		got = append(got, entry.Level.String())
		for _, key := range allKeys {
			if strings.Contains(entry.Message, key.Encode()) || strings.Contains(fieldsText(entry), key.Encode()) {
				w.t.Errorf("got a key in the log: %s", entry.Message)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("log levels (-want +got):\n%s", diff)
	}
}

func fieldsText(entry zapobserver.LoggedEntry) string {
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
		w.write(encodeKeys(keyB)) // in place, too
		w.waitForReload()
		w.wantKeys(keyB)
		w.wantLogLevels("info")
		w.waitForReload()
		w.wantLogLevels()
	})
}

// An invalid key file is logged once. The previous keys stay until the file is valid.
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

// A half-written file may look like a valid list of keys, so the reloader waits until it
// stops changing.
func TestChangingKeyFileIsNotLoaded(t *testing.T) {
	testKeyFile(t, []seal.Key{keyA}, func(w *keyFileTest) {
		time.Sleep(keyReloadEvery - time.Millisecond)
		w.write(encodeKeys(keyB))
		time.Sleep(keySettle / 2) // the reloader has read the first version
		w.write(encodeKeys(keyB, keyA))
		time.Sleep(keySettle)
		synctest.Wait()
		w.wantKeys(keyA)
		w.waitForReload()
		w.wantKeys(keyA, keyB)
		w.wantLogLevels("info")
	})
}

// announcingModule is the module of a shared store that records announcements.
type announcingModule struct{}

func (announcingModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: storesNamespace + "test_notes", New: func() caddy.Module { return new(announcingModule) }}
}

func (*announcingModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return unmarshalStore(d, nil)
}

func (*announcingModule) StoreID() string { return "test_notes" }
func (*announcingModule) Shared() bool    { return true }

func (*announcingModule) OpenStore() (session.Store, error) {
	return &announcingStore{Store: memory.New()}, nil
}

// announcingStore keeps items in memory, because only one process uses it.
type announcingStore struct {
	session.SharedStore // nil: what is not below is not called
	*memory.Store
}

var announcements announcementLog

type announcementLog struct {
	mu     sync.Mutex
	notes  [][]byte
	frozen atomic.Bool // the store does not answer
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

func (s *announcingStore) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return s.Store.View(ctx, id, f)
}

func (s *announcingStore) Acquire(context.Context, session.ID, uint64, session.Holder, session.Lease) (session.Lease, error) {
	return session.Lease{}, nil
}

func (s *announcingStore) Beat(context.Context, session.ID, session.Lease) error { return nil }

func (s *announcingStore) Release(context.Context, session.ID, session.Holder) error { return nil }

func (s *announcingStore) Announce(ctx context.Context, _ session.Topic, _ session.Holder, note []byte) ([][]byte, error) {
	if announcements.frozen.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
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

func (s *announcingStore) Delete(ctx context.Context, id session.ID) error {
	return s.Store.Delete(ctx, id)
}

func (s *announcingStore) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return s.Store.Tagged(ctx, tag)
}

func (s *announcingStore) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	return s.Store.List(ctx, after, limit)
}

func (s *announcingStore) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	return s.Store.Labels(ctx, ids)
}

// A running configuration announces its keys, reloads their files, and withdraws the
// announcement at its end. Validation does nothing of this.
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
		t.Errorf("validating: got %d announcements, want none", n)
	}
	w.load(text.String())
	if line := captured.wait(t, "this key seals sessions from now on"); !strings.Contains(line, keyB.ID()) {
		t.Errorf("got log line %s, want key %s", line, keyB.ID())
	}
	if a := newBrowser(t, w.origin).visit("/"); a.status == http.StatusInternalServerError {
		t.Errorf("got status %d of a visit, want another", a.status)
	}
	if err := os.WriteFile(file, []byte(encodeKeys(keyC, keyB, keyA)), 0o600); err != nil {
		t.Fatal(err)
	}
	if line := captured.wait(t, "keys replaced"); !strings.Contains(line, keyC.ID()) {
		t.Errorf("got log line %s, want key %s", line, keyC.ID())
	}
	captured.wait(t, "this key seals sessions from now on", keyC.ID())
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	notes := announcements.all()
	if n := len(notes); n < 3 || len(notes[n-1]) >= len(notes[0]) {
		t.Errorf("got %d announcements, the last of %d bytes; want at least 3, the last without keys", n, len(notes[n-1]))
	}
	w.wantNoSecrets("the log", captured.String(), keyA.Encode(), keyB.Encode(), keyC.Encode())
}
