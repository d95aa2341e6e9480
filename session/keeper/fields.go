package keeper

import (
	"encoding/binary"
	"time"
)

// A part of a record is a list of fields, each a number, a length and that
// many bytes. A reader keeps the fields it does not know and writes them back,
// so that instances of two releases can share a store. Numbers are never
// given a second meaning.
type fieldWriter []byte

func (w *fieldWriter) bytes(field uint64, v []byte) {
	if len(v) == 0 {
		return
	}
	*w = binary.AppendUvarint(*w, field)
	*w = binary.AppendUvarint(*w, uint64(len(v)))
	*w = append(*w, v...)
}

func (w *fieldWriter) string(field uint64, v string) {
	if v == "" {
		return
	}
	*w = binary.AppendUvarint(*w, field)
	*w = binary.AppendUvarint(*w, uint64(len(v)))
	*w = append(*w, v...)
}

func (w *fieldWriter) uint(field, v uint64) {
	if v != 0 {
		w.bytes(field, binary.AppendUvarint(nil, v))
	}
}

// time keeps milliseconds, which is finer than any lifetime we are told. The
// zero time is not written.
func (w *fieldWriter) time(field uint64, t time.Time) {
	if !t.IsZero() {
		w.bytes(field, binary.AppendVarint(nil, t.UnixMilli()))
	}
}

// eachField calls f with every field of a part, and whether the part was whole.
// What f does not know (it reports false) is appended to the returned rest.
func walkFields(part []byte, f func(field uint64, value []byte) bool) (rest []byte, ok bool) {
	for len(part) > 0 {
		field, n := binary.Uvarint(part)
		if n <= 0 {
			return nil, false
		}
		size, m := binary.Uvarint(part[n:])
		if m <= 0 || size > uint64(len(part)-n-m) {
			return nil, false
		}
		end := n + m + int(size)
		if !f(field, part[n+m:end:end]) {
			rest = append(rest, part[:end]...)
		}
		part = part[end:]
	}
	return rest, true
}

func decodeUint(v []byte) uint64 {
	n, _ := binary.Uvarint(v)
	return n
}

func decodeTime(v []byte) time.Time {
	ms, n := binary.Varint(v)
	if n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
