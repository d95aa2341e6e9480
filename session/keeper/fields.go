package keeper

import (
	"bytes"
	"encoding/binary"
	"time"
)

// A part of a record is a list of fields. Each field is a number, a length and that
// many bytes; numbers and lengths are unsigned varints. A reader keeps the fields it
// does not know and writes them back, so that instances of two releases can share a
// store. A field number never gets a second meaning.

// field reads and writes one field of a T.
type field[T any] struct {
	number uint64
	encode func(w *fieldWriter, from *T)
	// decode sets the field from its value. known is false for a value that this
	// release carries along unread; ok is false if the value is damaged.
	decode func(into *T, value []byte) (known, ok bool)
}

func stringField[T any](number uint64, at func(*T) *string) field[T] {
	return field[T]{
		number: number,
		encode: func(w *fieldWriter, from *T) { w.string(number, *at(from)) },
		decode: func(into *T, v []byte) (known, ok bool) { *at(into) = string(v); return true, true },
	}
}

// bytesField copies the value: the caller may clear the decrypted part.
func bytesField[T any, B ~[]byte](number uint64, at func(*T) *B) field[T] {
	return field[T]{
		number: number,
		encode: func(w *fieldWriter, from *T) { w.bytes(number, *at(from)) },
		decode: func(into *T, v []byte) (known, ok bool) { *at(into) = bytes.Clone(v); return true, true },
	}
}

func uintField[T any](number uint64, at func(*T) *uint64) field[T] {
	return field[T]{
		number: number,
		encode: func(w *fieldWriter, from *T) { w.uint(number, *at(from)) },
		decode: func(into *T, v []byte) (known, ok bool) { *at(into) = decodeUint(v); return true, true },
	}
}

func boolField[T any](number uint64, at func(*T) *bool) field[T] {
	return field[T]{
		number: number,
		encode: func(w *fieldWriter, from *T) {
			if *at(from) {
				w.uint(number, 1)
			}
		},
		decode: func(into *T, v []byte) (known, ok bool) { *at(into) = decodeUint(v) != 0; return true, true },
	}
}

func timeField[T any](number uint64, at func(*T) *time.Time) field[T] {
	return field[T]{
		number: number,
		encode: func(w *fieldWriter, from *T) { w.time(number, *at(from)) },
		decode: func(into *T, v []byte) (known, ok bool) { *at(into) = decodeTime(v); return true, true },
	}
}

// encodeFields writes the fields in the order of the table, and the unknown ones last.
// size is the expected length in bytes: the part is cleared after sealing, but not a
// copy that append leaves behind when it grows.
func encodeFields[T any](table []field[T], from *T, unknown []byte, size int) []byte {
	w := make(fieldWriter, 0, size+len(unknown))
	for i := range table {
		table[i].encode(&w, from)
	}
	return append(w, unknown...)
}

// decodeFields sets the fields of a T from a part and returns the unknown fields as
// they are. It reports false if the part is damaged.
func decodeFields[T any](table []field[T], part []byte, into *T) (unknown []byte, ok bool) {
	undamaged := true
	unknown, ok = eachField(part, func(number uint64, value []byte) bool {
		for i := range table {
			if table[i].number == number {
				known, ok := table[i].decode(into, value)
				undamaged = undamaged && ok
				return known
			}
		}
		return false
	})
	return unknown, ok && undamaged
}

// eachField calls f with every field of a part. It returns the fields for which f
// reports false, and false itself if the part ends within a field.
func eachField(part []byte, f func(number uint64, value []byte) (known bool)) (unknown []byte, ok bool) {
	for len(part) > 0 {
		number, n := binary.Uvarint(part)
		if n <= 0 {
			return nil, false
		}
		size, m := binary.Uvarint(part[n:])
		if m <= 0 || size > uint64(len(part)-n-m) {
			return nil, false
		}
		end := n + m + int(size)
		if !f(number, part[n+m:end:end]) {
			unknown = append(unknown, part[:end]...)
		}
		part = part[end:]
	}
	return unknown, true
}

// hasField reports whether a list of fields contains one with the given number.
func hasField(part []byte, number uint64) (found bool) {
	eachField(part, func(n uint64, _ []byte) bool {
		found = found || n == number
		return true
	})
	return found
}

// fieldWriter is a part that is being written. Empty values are left out.
type fieldWriter []byte

func (w *fieldWriter) bytes(number uint64, v []byte) {
	if len(v) == 0 {
		return
	}
	*w = binary.AppendUvarint(*w, number)
	*w = binary.AppendUvarint(*w, uint64(len(v)))
	*w = append(*w, v...)
}

func (w *fieldWriter) string(number uint64, v string) {
	if v == "" {
		return
	}
	*w = binary.AppendUvarint(*w, number)
	*w = binary.AppendUvarint(*w, uint64(len(v)))
	*w = append(*w, v...)
}

func (w *fieldWriter) uint(number, v uint64) {
	if v != 0 {
		w.bytes(number, binary.AppendUvarint(nil, v))
	}
}

// time writes milliseconds since 1970, as a signed varint: authorization servers give
// lifetimes in seconds.
func (w *fieldWriter) time(number uint64, t time.Time) {
	if !t.IsZero() {
		w.bytes(number, binary.AppendVarint(nil, t.UnixMilli()))
	}
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
