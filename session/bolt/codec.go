package bolt

import (
	"encoding/binary"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// formatVersion is the layout of the file described here. A file with another
// version is refused.
//
//	store     "format" → version of the layout, 8 bytes
//	sessions  ID → version (8) ‖ expiry (8) ‖ value
//	sweep     hour (8) ‖ ID → nothing
//	tagged    tag ‖ ID → nothing
//	tags      ID → its tags, one after the other
//
// The last two are missing from files of the first release, and made by Open.
// Its items have no tags until they are written again.
//
// All numbers are big-endian. An item's expiry is in milliseconds since 1970,
// signed; an hour is counted from 1970 too.
const formatVersion = 1

var (
	// The first name in the order of bytes and eight bytes long: its entry is
	// then aligned in memory, which saves bbolt a copy with every View.
	itemsBucket = []byte("sessions")
	indexBucket = []byte("sweep")
	metaBucket  = []byte("store")

	taggedBucket = []byte("tagged")
	tagsBucket   = []byte("tags")

	formatKey = []byte("format")
)

const itemHeaderSize = 8 + 8

// encodeItem copies the item: the caller gets its slice back before bbolt is
// done with the write.
func encodeItem(item session.Item) []byte {
	b := make([]byte, 0, itemHeaderSize+len(item.Value))
	b = binary.BigEndian.AppendUint64(b, item.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(item.Expires.UnixMilli()))
	return append(b, item.Value...)
}

// decodeItem does not copy: the item's value is part of b. It reports false if
// b is too short to be an item.
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

// indexKey is a key of the index bucket. Keys sort by time.
type indexKey [8 + len(session.ID{})]byte

func newIndexKey(id session.ID, expires time.Time) indexKey {
	var k indexKey
	binary.BigEndian.PutUint64(k[:8], dueHour(expires))
	copy(k[8:], id[:])
	return k
}

func (k indexKey) hour() uint64   { return binary.BigEndian.Uint64(k[:8]) }
func (k indexKey) id() session.ID { return session.ID(k[8:]) }

// dueHour is the first full hour at which an item is sure to have expired. An
// item that lives longer thus always belongs under a later hour than now.
func dueHour(expires time.Time) uint64 { return hourOf(expires) + 1 }

func hourOf(t time.Time) uint64 {
	return uint64(max(0, t.UnixMilli()) / time.Hour.Milliseconds())
}
