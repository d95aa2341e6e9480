package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// damagedFile returns the path of a store with items that damage has changed. Without
// closed, the file is as after a crash: it has no list of free pages.
func damagedFile(t *testing.T, closed bool, damage func(t *testing.T, content []byte) []byte) string {
	t.Helper()
	path := newPath(t)
	s := open(t, path)
	for i := range 200 {
		item := newItem(1, time.Hour)
		item.Value = bytes.Repeat([]byte{byte(i)}, 300)
		mustCreate(t, s, session.ID{byte(i)}, item)
	}
	crashed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content := crashed
	if closed {
		if content, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, damage(t, content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDamagedFilesAreRecognized(t *testing.T) {
	page := os.Getpagesize()
	zeroFrom := func(from, n int) func(*testing.T, []byte) []byte {
		return func(_ *testing.T, content []byte) []byte {
			clear(content[from:min(from+n, len(content))])
			return content
		}
	}
	for _, tt := range []struct {
		name   string
		damage func(*testing.T, []byte) []byte
		// onlyCrashed is set for damage that Open notices only after a crash. After
		// Close, the calls that meet it fail.
		onlyCrashed bool
	}{
		{"zeroed head", zeroFrom(0, 2*page), false},
		{"zeroed", func(_ *testing.T, content []byte) []byte { return make([]byte, len(content)) }, false},
		{"garbage", func(_ *testing.T, content []byte) []byte {
			return bytes.Repeat([]byte("garbage "), len(content)/8)
		}, false},
		{"one byte", func(*testing.T, []byte) []byte { return []byte{1} }, false},
		{"one page", func(_ *testing.T, content []byte) []byte { return content[:page] }, false},
		{"cut off after the head", func(_ *testing.T, content []byte) []byte { return content[:2*page] }, false},
		{"cut off in the middle", func(t *testing.T, content []byte) []byte {
			used := usedBytes(t, content)
			return content[:used/2]
		}, false},
		{"checksums", func(_ *testing.T, content []byte) []byte {
			content[16+56]++
			content[page+16+56]++
			return content
		}, false},
		{"zeroed pages", func(t *testing.T, content []byte) []byte {
			return zeroFrom(2*page, usedBytes(t, content)-2*page)(t, content)
		}, false},
		{"one zeroed leaf", func(t *testing.T, content []byte) []byte {
			at := leafOf(t, content)
			return zeroFrom(at, page)(t, content)
		}, true},
	} {
		for _, closed := range []bool{false, true} {
			if closed && tt.onlyCrashed {
				continue
			}
			t.Run(map[bool]string{false: "crashed ", true: "closed "}[closed]+tt.name, func(t *testing.T) {
				path := damagedFile(t, closed, tt.damage)
				before, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				s, err := Open(path)
				if err == nil {
					_ = s.Close()
				}
				if !errors.Is(err, ErrDamaged) {
					t.Fatalf("Open: got error %v, want ErrDamaged", err)
				}
				if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
					t.Error("Open changed the damaged file")
				}
				aside, err := SetAside(path)
				if err != nil {
					t.Fatal(err)
				}
				if moved, _ := os.ReadFile(aside); !bytes.Equal(before, moved) {
					t.Error("SetAside changed the damaged file")
				}
				s = open(t, path)
				mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))
			})
		}
	}
}

// TestUsableFilesAreNotDamaged: Open must not call a file damaged that works, as its
// sessions would end.
func TestUsableFilesAreNotDamaged(t *testing.T) {
	for name, closed := range map[string]bool{"crashed": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			path := damagedFile(t, closed, func(_ *testing.T, content []byte) []byte { return content })
			s := open(t, path)
			for i := range 200 {
				if err := s.View(t.Context(), session.ID{byte(i)}, func(session.Item) error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Run("one good meta page", func(t *testing.T) {
		path := damagedFile(t, true, func(_ *testing.T, content []byte) []byte {
			clear(content[:os.Getpagesize()])
			return content
		})
		if s, err := Open(path); err != nil {
			t.Error(err)
		} else {
			_ = s.Close()
		}
	})
}

// usedBytes returns the size that the newer meta page names.
func usedBytes(t *testing.T, content []byte) int {
	t.Helper()
	var newest, pages uint64
	for page := range 2 {
		meta := content[page*os.Getpagesize()+16:]
		if id := binary.NativeEndian.Uint64(meta[48:]); id >= newest {
			newest, pages = id, binary.NativeEndian.Uint64(meta[40:])
		}
	}
	return int(pages) * os.Getpagesize()
}

// leafOf returns where a leaf page of the items begins.
func leafOf(t *testing.T, content []byte) int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	at := 0
	err = db.View(func(tx *bbolt.Tx) error {
		id := session.ID{100}
		value := tx.Bucket(itemsBucket).Get(id[:])
		at = bytes.Index(content, value[len(value)-200:])
		return nil
	})
	if err != nil || at < 0 {
		t.Fatal("found no leaf", err)
	}
	return at / os.Getpagesize() * os.Getpagesize()
}

// TestForeignFilesStayInPlace: a path that an operator has mistyped may name any file.
func TestForeignFilesStayInPlace(t *testing.T) {
	path := newPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if to, err := SetAside(path); err == nil {
		t.Errorf("SetAside moved a file that others may read to %s", to)
	}
}

// TestUnusableRightsAreNoDamage, also of a file that is too small for a store.
func TestUnusableRightsAreNoDamage(t *testing.T) {
	for name, content := range map[string][]byte{"small": []byte("x"), "large": bytes.Repeat([]byte("x"), 1<<16)} {
		path := newPath(t)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(path); err == nil || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got error %v, want one about the rights", name, err)
			if err == nil {
				_ = s.Close()
			}
		}
	}
}
