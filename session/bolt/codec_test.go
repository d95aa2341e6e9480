package bolt

import (
	"bytes"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func FuzzDecodeItem(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, itemHeaderSize-1))
	f.Add(make([]byte, itemHeaderSize))
	f.Add(encodeItem(session.Item{Version: 7, Expires: time.UnixMilli(1e12), Value: []byte("value")}))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		item, ok := decodeItem(b)
		if ok != (len(b) >= itemHeaderSize) {
			t.Fatalf("decoding %d bytes: got ok = %v, want %v", len(b), ok, !ok)
		}
		if ok && !bytes.Equal(encodeItem(item), b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, item, encodeItem(item))
		}
	})
}

// TestItemIsDueAtTheFullHourAfterItsExpiry is what the sweep relies on.
func TestItemIsDueAtTheFullHourAfterItsExpiry(t *testing.T) {
	hour := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ expires, due time.Time }{
		{hour, hour.Add(time.Hour)},
		{hour.Add(time.Millisecond), hour.Add(time.Hour)},
		{hour.Add(time.Hour - time.Millisecond), hour.Add(time.Hour)},
		{hour.Add(time.Hour), hour.Add(2 * time.Hour)},
		{time.Unix(0, 0), time.Unix(3600, 0)},
		{time.Time{}, time.Unix(3600, 0)}, // long before 1970
	} {
		key := newIndexKey(session.ID{1, 2, 3}, tt.expires)
		if got := key.id(); got != (session.ID{1, 2, 3}) {
			t.Errorf("ID of the key: got %x, want 010203…", got[:])
		}
		if got := time.Unix(int64(key.hour())*3600, 0); !got.Equal(tt.due) {
			t.Errorf("an item that expires at %v is due at %v, want %v", tt.expires, got, tt.due)
		}
		if now := hourOf(tt.due); key.hour() > now {
			t.Errorf("an item due at %v has hour %d, which is later than %d", tt.due, key.hour(), now)
		}
	}
}
