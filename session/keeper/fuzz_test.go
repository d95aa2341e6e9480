package keeper

import (
	"bytes"
	"testing"
)

// FuzzDecodeParts: encoding a decoded part and decoding it again changes nothing, whatever
// another release or a defective one wrote.
func FuzzDecodeParts(f *testing.F) {
	rec := fullRecord()
	f.Add(rec.hot.encode())
	f.Add(rec.cold.encode())
	f.Add([]byte{})
	f.Add([]byte{fieldAccessToken, 2, fieldTokenValue, 9})
	f.Add([]byte{fieldCreated, 0, fieldRotation, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add(bytes.Repeat([]byte{0x80}, 12))
	f.Fuzz(func(t *testing.T, part []byte) {
		h, ok := decodeHot(part)
		if ok {
			once := h.encode()
			again, ok := decodeHot(once)
			if !ok || !bytes.Equal(again.encode(), once) {
				t.Errorf("got hot part %x after rewriting, want %x", again.encode(), once)
			}
		}
		if c, ok := decodeCold(part); ok {
			once := c.encode()
			if again, ok := decodeCold(once); !ok || !bytes.Equal(again.encode(), once) {
				t.Errorf("got cold part %x after rewriting, want %x", again.encode(), once)
			}
		}
	})
}
