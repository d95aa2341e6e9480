package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// FuzzEntries stores arbitrary bytes under an ID and in the index. View finds an item
// or none, and the entry can be overwritten, deleted and swept.
func FuzzEntries(f *testing.F) {
	soon, id := time.Now().Add(time.Hour), session.ID{1}
	key := newIndexKey(id, soon)
	f.Add(encodeItem(session.Item{Version: 1, Expires: soon, Value: []byte("value")}), key[:])
	f.Add([]byte{}, make([]byte, len(key)))
	f.Add(bytes.Repeat([]byte{0xff}, 40), bytes.Repeat([]byte{0xff}, len(key)))
	f.Add(append(make([]byte, 8), "\x7f\xff\xff\xff\xff\xff\xff\xff"...), key[:])
	f.Add(append(make([]byte, 8), "\x80\x00\x00\x00\x00\x00\x00\x00x"...), append(key[:], 0))

	s, err := Open(filepath.Join(f.TempDir(), "sessions.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, value, index []byte) {
		if len(value) > 4096 || len(index) == 0 || len(index) > 4096 {
			return
		}
		err := s.write(t.Context(), s.writes, func(tx *bbolt.Tx) error {
			return errors.Join(tx.Bucket(itemsBucket).Put(id[:], value), tx.Bucket(indexBucket).Put(index, nil))
		})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		err = s.View(t.Context(), id, func(item session.Item) error {
			if !now.Before(item.Expires) || !bytes.Equal(encodeItem(item), value) {
				t.Errorf("View of %x: got %+v, want an item with the same encoding that has not expired", value, item)
			}
			return nil
		})
		found := err == nil
		if !found && !errors.Is(err, session.ErrNotFound) {
			t.Errorf("View of %x: got error %v, want ErrNotFound", value, err)
		}
		fresh := session.Item{Version: 1, Expires: soon, Value: []byte("new")}
		if err := s.Create(t.Context(), id, fresh); err != nil != found || found && err != session.ErrConflict {
			t.Errorf("Create over %x: got error %v, want ErrConflict if there is an item", value, err)
		}
		if err := s.Delete(t.Context(), id); err != nil {
			t.Errorf("Delete of %x: got error %v, want nil", value, err)
		}
		if err := s.sweep(t.Context(), time.Now().Add(1000*time.Hour)); err != nil {
			t.Errorf("sweep: got error %v, want nil", err)
		}
		due := len(index) == len(indexKey{}) && binary.BigEndian.Uint64(index) <= hourOf(time.Now().Add(1000*time.Hour))
		err = s.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(indexBucket)
			if due && b.Stats().KeyN != 0 {
				t.Errorf("index after the sweep: got %d entries, want 0", b.Stats().KeyN)
			}
			return b.Delete(index) // an entry that is not due yet
		})
		if err != nil {
			t.Error(err)
		}
	})
}
