package redis

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// What is in the database. All numbers are big-endian, 8 bytes long.
//
//	<prefix>:{<id>}           version ‖ expiry ‖ value
//	<prefix>:{<id>}:lease     holder (16 bytes) ‖ beat
//	<prefix>:{<id>}:landed    nothing; see Store.replicated
//	<prefix>:notes:{<topic>}  hash: holder → time ‖ note
//	<prefix>:tag:{<tag>}      sorted set: ID, by when it is no longer listed
//	<prefix>:tag:{<tag>}:landed  as above
//
// IDs, topics and tags are in base64url, but for the IDs in a set, which are
// bytes. An expiry is in milliseconds since 1970,
// signed, and so is the score in a set; the time of a note is too, by the clock
// of the server. The braces
// make the keys of a session live in the same slot of a cluster. Every key has
// a time to live: items and leases that of the item, notes a minute, sets that of
// the last in them.
const (
	itemHeaderSize = 8 + 8
	leaseSize      = len(session.Holder{}) + 8
)

// errMalformed: what is in the database was not written by this package.
var errMalformed = errors.New("malformed value in the database")

// keyEncoding is strict, so that every ID has one key.
var keyEncoding = base64.RawURLEncoding.Strict()

// keyspace makes and reads the names of keys.
type keyspace struct {
	items, notes, tags string // up to and with the opening brace
}

func newKeyspace(prefix string) keyspace {
	return keyspace{items: prefix + ":{", notes: prefix + ":notes:{", tags: prefix + ":tag:{"}
}

func (k keyspace) item(id session.ID) string { return wrap(k.items, id, "}") }

func (k keyspace) lease(id session.ID) string { return wrap(k.items, id, "}:lease") }

func (k keyspace) landed(id session.ID) string { return wrap(k.items, id, "}:landed") }

func (k keyspace) note(topic session.Topic) string { return wrap(k.notes, topic, "}") }

func (k keyspace) tag(tag session.Tag) string { return wrap(k.tags, tag, "}") }

func (k keyspace) tagLanded(tag session.Tag) string { return wrap(k.tags, tag, "}:landed") }

// wrap makes a key with one allocation: it is part of every cached read.
func wrap(before string, name [32]byte, after string) string {
	b := make([]byte, 0, len(before)+43+len(after))
	b = append(b, before...)
	b = keyEncoding.AppendEncode(b, name[:])
	return rueidis.BinaryString(append(b, after...))
}

// id returns the ID of an item's key. It reports false for every other key.
func (k keyspace) id(key string) (id session.ID, ok bool) {
	name, ok := strings.CutPrefix(key, k.items)
	if !ok {
		return id, false
	}
	name, ok = strings.CutSuffix(name, "}")
	if !ok || len(name) != keyEncoding.EncodedLen(len(id)) {
		return id, false
	}
	n, err := keyEncoding.Decode(id[:], []byte(name))
	return id, err == nil && n == len(id) // the decoder passes over line ends
}

func encodeItem(item session.Item) string {
	b := make([]byte, 0, itemHeaderSize+len(item.Value))
	b = binary.BigEndian.AppendUint64(b, item.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(item.Expires.UnixMilli()))
	return rueidis.BinaryString(append(b, item.Value...))
}

// decodeItem does not copy: the item's value is part of b.
func decodeItem(b []byte) (session.Item, error) {
	if len(b) < itemHeaderSize {
		return session.Item{}, errMalformed
	}
	return session.Item{
		Version: binary.BigEndian.Uint64(b),
		Expires: time.UnixMilli(int64(binary.BigEndian.Uint64(b[8:]))),
		Value:   b[itemHeaderSize:len(b):len(b)],
	}, nil
}

func encodeVersion(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }

func encodeLease(l session.Lease) string {
	return string(binary.BigEndian.AppendUint64(l.Holder[:], l.Beat))
}

func decodeLease(s string) (session.Lease, error) {
	if len(s) != leaseSize {
		return session.Lease{}, errMalformed
	}
	return session.Lease{
		Holder: session.Holder([]byte(s[:16])),
		Beat:   binary.BigEndian.Uint64([]byte(s[16:])),
	}, nil
}

// lifetime returns how long the server has to keep an item, in milliseconds.
func lifetime(expires time.Time) int64 { return time.Until(expires).Milliseconds() }
