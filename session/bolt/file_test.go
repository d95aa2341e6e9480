package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func TestFileAndDirectoriesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	path := filepath.Join(t.TempDir(), "a", "b", "sessions.db")
	open(t, path)
	for _, want := range []struct {
		path string
		mode fs.FileMode
	}{
		{path, 0o600},
		{filepath.Dir(path), 0o700},
		{filepath.Dir(filepath.Dir(path)), 0o700},
	} {
		info, err := os.Stat(want.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want.mode {
			t.Errorf("%s: got mode %04o, want %04o", want.path, got, want.mode)
		}
	}
}

func TestOpenRefusesFilesThatOthersCanWrite(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no permission bits")
	}
	for _, tt := range []struct {
		name      string
		dir, file fs.FileMode
		ok        bool
	}{
		{"private", 0o700, 0o600, true},
		{"readable", 0o755, 0o644, true},
		{"group-writable file", 0o700, 0o620, false},
		{"world-writable file", 0o700, 0o602, false},
		{"group-writable directory", 0o770, 0o600, false},
		{"world-writable directory", 0o707, 0o600, false},
		{"sticky directory", 0o777 | fs.ModeSticky, 0o600, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := newPath(t)
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			err := errors.Join(os.Chmod(path, tt.file), os.Chmod(filepath.Dir(path), tt.dir))
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err == nil {
				err = s.Close()
			}
			switch {
			case tt.ok && err != nil:
				t.Errorf("got error %q, want nil", err)
			case !tt.ok && err == nil:
				t.Error("got nil, want an error")
			case !tt.ok && !(strings.Contains(err.Error(), "store") && strings.Contains(err.Error(), "chmod go-w")):
				t.Errorf("got error %v, want one with \"chmod go-w\"", err)
			}
		})
	}
}

func TestOpenRefusesForeignFiles(t *testing.T) {
	makeFile := func(t *testing.T, fill func(*bbolt.Tx) error) string {
		path := filepath.Join(t.TempDir(), "file.db")
		if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fill), db.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	withFormat := func(format []byte) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{itemsBucket, indexBucket, metaBucket} {
				if _, err := tx.CreateBucket(name); err != nil {
					return err
				}
			}
			return tx.Bucket(metaBucket).Put(formatKey, format)
		}
	}
	for _, tt := range []struct {
		name string
		path func(t *testing.T) string
		want string
	}{
		{"newer format", func(t *testing.T) string {
			return makeFile(t, withFormat(binary.BigEndian.AppendUint64(nil, formatVersion+1)))
		}, "format version 2"},
		{"damaged format", func(t *testing.T) string { return makeFile(t, withFormat([]byte("1"))) }, "no format version"},
		{"other bbolt file", func(t *testing.T) string {
			return makeFile(t, func(tx *bbolt.Tx) error {
				_, err := tx.CreateBucket(itemsBucket)
				return err
			})
		}, "no session store"},
		{"text file", func(t *testing.T) string {
			path := makeFile(t, func(*bbolt.Tx) error { return nil })
			if err := os.WriteFile(path, bytes.Repeat([]byte("text "), 10000), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "invalid database"},
		{"directory", func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "sessions.db")
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			return path
		}, "directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.path(t)
			before, _ := os.ReadFile(path)
			s, err := Open(path)
			if err == nil {
				_ = s.Close()
				t.Fatal("got nil, want an error")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got error %q, want one with the path and %q", err, tt.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("Open changed the file that it refused")
			}
		})
	}
}

// TestSecondOpenWaitsForTheLock runs in a bubble, so that the wait takes no time.
func TestSecondOpenWaitsForTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newPath(t)
		first := open(t, path)
		start := time.Now()
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another process has it open") {
			t.Errorf("Open of an open file: got error %v, want one with \"another process has it open\"", err)
		}
		if waited := time.Since(start); waited < 4*time.Second || waited > 10*time.Second {
			t.Errorf("Open waited %v for the lock, want about 5s", waited)
		}

		// As at a restart, the first store closes while the second one waits.
		time.AfterFunc(2*time.Second, func() { _ = first.Close() })
		open(t, path)
	})
}

func TestCloseSavesTheFreePages(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
	if freelistSaved(t, path) {
		t.Error("Create saved the list of free pages, want it saved by Close only")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !freelistSaved(t, path) {
		t.Error("Close did not save the list of free pages")
	}
}

// freelistSaved reports whether the file has a list of free pages. It reads the newer
// of the two meta pages at the start of the file, whose layout is part of bbolt's file
// format.
func freelistSaved(t *testing.T, path string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const pageHeader, freelist, txid = 16, 32, 48
	newest, saved := uint64(0), false
	for page := 0; page < 2; page++ {
		meta := b[page*os.Getpagesize()+pageHeader:]
		if id := binary.NativeEndian.Uint64(meta[txid:]); id >= newest {
			newest, saved = id, binary.NativeEndian.Uint64(meta[freelist:]) != math.MaxUint64
		}
	}
	return saved
}

// openReadOnly opens a store whose file descriptor does not allow writing.
func openReadOnly(t *testing.T, path string) *Store {
	t.Helper()
	db, err := openFile(path, func(name string, _ int, _ fs.FileMode) (*os.File, error) { return os.Open(name) })
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(db)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestReadOnlyFileFailsWritesAndServesReads(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openReadOnly(t, path)
	for range 3 {
		calls := map[string]error{
			"Create":  s.Create(t.Context(), session.ID{2}, newItem(1, time.Hour)),
			"Replace": s.Replace(t.Context(), session.ID{1}, newItem(2, time.Hour)),
			"Delete":  s.Delete(t.Context(), session.ID{1}),
		}
		for call, err := range calls {
			if err == nil || errors.Is(err, session.ErrConflict) {
				t.Errorf("%s: got error %v, want that of the file system", call, err)
			}
		}
		err := s.View(t.Context(), session.ID{1}, func(item session.Item) error {
			if item.Version != 1 || string(item.Value) != "value" {
				return fmt.Errorf("got version %d, value %q, want 1, \"value\"", item.Version, item.Value)
			}
			return nil
		})
		if err != nil {
			t.Errorf("View: got error %q, want the item", err)
		}
	}
}

// TestDamagedPageFailsTheCall and not the process.
func TestDamagedPageFailsTheCall(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	var leaf int
	err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error {
		for i := range 200 {
			id, item := session.ID{byte(i)}, newItem(1, time.Hour)
			item.Value = make([]byte, 200)
			if err := putItem(tx, id, encodeItem(item)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		for n := 0; leaf == 0; n++ {
			info, err := tx.Page(n)
			if err != nil || info == nil {
				return fmt.Errorf("looking for a leaf page: %w", err)
			}
			// The root page is a leaf, too: it lists the five buckets.
			if info.Type == "leaf" && info.Count > 5 {
				leaf = n
			}
		}
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, os.Getpagesize()), int64(leaf*os.Getpagesize()))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}

	s = open(t, path)
	damaged := 0
	for i := range 200 {
		err := view(t, s, session.ID{byte(i)})
		if err == nil {
			continue
		}
		damaged++
		prefetched := s.db.View(func(tx *bbolt.Tx) error {
			prefetch(tx, session.ID{byte(i)}) // ignores the damage
			return nil
		})
		if prefetched != nil {
			t.Errorf("prefetching a damaged page: got error %v, want nil", prefetched)
		}
		for call, err := range map[string]error{
			"View":    err,
			"Create":  s.Create(t.Context(), session.ID{byte(i)}, newItem(1, time.Hour)),
			"Replace": s.Replace(t.Context(), session.ID{byte(i)}, newItem(2, time.Hour)),
			"Delete":  s.Delete(t.Context(), session.ID{byte(i)}),
		} {
			if err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%s of an item in a damaged page: got error %v, want one with \"damaged\"", call, err)
			}
		}
	}
	if damaged == 0 || damaged == 200 {
		t.Errorf("%d of 200 items are in the damaged page, want some and not all", damaged)
	}
}
