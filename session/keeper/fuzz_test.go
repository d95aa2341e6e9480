package keeper

import (
	"bytes"
	"testing"
)

// FuzzDecodeHot: whatever a later or a broken release wrote can be read or not,
// and what was read once stays as it is.
func FuzzDecodeHot(f *testing.F) {
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
				t.Errorf("a hot part changes by being rewritten: %x, then %x", once, again.encode())
			}
		}
		if c, ok := decodeCold(part); ok {
			once := c.encode()
			if again, ok := decodeCold(once); !ok || !bytes.Equal(again.encode(), once) {
				t.Errorf("a cold part changes by being rewritten: %x, then %x", once, again.encode())
			}
		}
	})
}
