package bolt

import (
	"encoding/binary"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// formatVersion is the version of this layout. Open refuses a file with another one.
//
//	store     "format" → version of the layout, 8 bytes
//	sessions  ID → version (8) ‖ expiry (8) ‖ value
//	sweep     hour (8) ‖ ID → nothing
//	tagged    tag ‖ ID → nothing
//	tags      ID → its tags, concatenated
//	labels    ID → its label
//
// Files of earlier releases lack some of the last three buckets. Open creates them, and
// items of those releases have no tags or no label until their next write. An earlier
// release does not remove labels, so a label may have no item.
//
// All numbers are big-endian. An expiry is signed, in milliseconds since 1970. An hour
// is the number of full hours since 1970.
const formatVersion = 1

var (
	// The name sorts first and has 8 bytes. The bucket's entry is therefore aligned
	// in memory, which saves bbolt a copy in every View.
	itemsBucket = []byte("sessions")
	indexBucket = []byte("sweep")
	metaBucket  = []byte("store")

	taggedBucket = []byte("tagged")
	tagsBucket   = []byte("tags")
	labelsBucket = []byte("labels")

	formatKey = []byte("format")
)

const itemHeaderSize = 8 + 8

// encodeItem copies the value: a caller may use its slice again before bbolt has
// finished the write.
func encodeItem(item session.Item) []byte {
	b := make([]byte, 0, itemHeaderSize+len(item.Value))
	b = binary.BigEndian.AppendUint64(b, item.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(item.Expires.UnixMilli()))
	return append(b, item.Value...)
}

// decodeItem does not copy: the item's value is part of b. It returns false if b is
// too short to be an item.
func decodeItem(b []byte) (session.Item, bool) {
	if len(b) < itemHeaderSize {
		return session.Item{}, false
	}
	return session.Item{
		Version: binary.BigEndian.Uint64(b),
		Expires: time.UnixMilli(int64(binary.BigEndian.Uint64(b[8:]))),
		Value:   b[itemHeaderSize:len(b):len(b)],
	}, true
}

// indexKey is a key of the sweep bucket. Keys sort by hour.
type indexKey [8 + len(session.ID{})]byte

func newIndexKey(id session.ID, expires time.Time) indexKey {
	var k indexKey
	binary.BigEndian.PutUint64(k[:8], dueHour(expires))
	copy(k[8:], id[:])
	return k
}

func (k indexKey) hour() uint64   { return binary.BigEndian.Uint64(k[:8]) }
func (k indexKey) id() session.ID { return session.ID(k[8:]) }

// dueHour returns the first full hour at which an item with this expiry has expired.
// For an item that has not expired, it is always later than the current hour.
func dueHour(expires time.Time) uint64 { return hourOf(expires) + 1 }

func hourOf(t time.Time) uint64 {
	return uint64(max(0, t.UnixMilli()) / time.Hour.Milliseconds())
}
