package redis

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// The keys and values in the database. All numbers are big-endian and have 8 bytes.
//
//	<prefix>:{<id>}           version ‖ expiry ‖ value
//	<prefix>:{<id>}:lease     holder (16 bytes) ‖ beat
//	<prefix>:{<id>}:label     label
//	<prefix>:{<id>}:landed    empty; see Store.replicated
//	<prefix>:notes:{<topic>}  hash: holder → time ‖ announcement
//	<prefix>:tag:{<tag>}      sorted set: ID, by the end of its entry
//	<prefix>:tag:{<tag>}:landed  empty; see Store.replicated
//	<prefix>:list:{<byte>}    sorted set: ID, by the end of its entry
//	<prefix>:list:{<byte>}:landed  empty; see Store.replicated
//
// IDs, topics and tags are in base64url. The IDs in a set are raw bytes. The sets of the
// list have the items with a label, by the first byte of their ID, as two hexadecimal
// digits. All times are
// signed, in milliseconds since 1970; those of announcements are by the clock of the
// server. The braces put all keys of a session into the same slot of a cluster. Every
// key has a time to live: items, leases and labels that of the item, announcements a minute,
// sets that of their last entry.
const (
	itemHeaderSize = 8 + 8
	leaseSize      = len(session.Holder{}) + 8
)

// errMalformed reports a value in the database that this package has not written.
var errMalformed = errors.New("malformed value in the database")

// keyEncoding is strict, so that every ID has exactly one key.
var keyEncoding = base64.RawURLEncoding.Strict()

// keyspace encodes and decodes the names of keys.
type keyspace struct {
	items, announcements, tags, lists string // up to and including the opening brace
}

func newKeyspace(prefix string) keyspace {
	return keyspace{items: prefix + ":{", announcements: prefix + ":notes:{", tags: prefix + ":tag:{", lists: prefix + ":list:{"}
}

func (k keyspace) item(id session.ID) string { return wrap(k.items, id, "}") }

func (k keyspace) lease(id session.ID) string { return wrap(k.items, id, "}:lease") }

func (k keyspace) label(id session.ID) string { return wrap(k.items, id, "}:label") }

func (k keyspace) itemWait(id session.ID) string { return wrap(k.items, id, "}:landed") }

func (k keyspace) announcement(topic session.Topic) string {
	return wrap(k.announcements, topic, "}")
}

func (k keyspace) tag(tag session.Tag) string { return wrap(k.tags, tag, "}") }

func (k keyspace) tagWait(tag session.Tag) string { return wrap(k.tags, tag, "}:landed") }

func (k keyspace) list(first byte) string { return fmt.Sprintf("%s%02x}", k.lists, first) }

func (k keyspace) listWait(first byte) string { return k.list(first) + ":landed" }

// wrap returns a key with one allocation, because every cached read calls it.
func wrap(before string, name [32]byte, after string) string {
	b := make([]byte, 0, len(before)+43+len(after))
	b = append(b, before...)
	b = keyEncoding.AppendEncode(b, name[:])
	return rueidis.BinaryString(append(b, after...))
}

// id returns the ID of an item's key. It returns false for every other key.
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
	return id, err == nil && n == len(id) // the decoder ignores line ends
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

// lifetime returns the time to live of an item in milliseconds.
func lifetime(expires time.Time) int64 { return time.Until(expires).Milliseconds() }
