package session

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// FuzzOpenRecord: whatever the store returns, it is the record as it was sealed
// or none.
func FuzzOpenRecord(f *testing.F) {
	site, secret := testSite(f, testKey(1), testKey(2)), testSecret(1)
	// Not sealed here: each fuzzing process would draw other nonces.
	id, item := site.ID(secret), Item{Version: 3, Value: goldenRecord(f)}
	f.Add(item.Value, uint64(3))
	f.Add(item.Value, uint64(4))
	f.Add(item.Value[:headSize+4], uint64(3))
	f.Add(item.Value[:len(item.Value)-1], uint64(3))
	f.Add([]byte(sealMagic), uint64(0))
	f.Add(append([]byte(sealMagic+"\x01\x01"), make([]byte, 300)...), uint64(1))
	f.Add(append(bytes.Clone(item.Value[:headSize]), bytes.Repeat([]byte{0xff}, 100)...), uint64(3))
	f.Fuzz(func(t *testing.T, value []byte, version uint64) {
		given := bytes.Clone(value)
		rec, err := site.openRecord(secret, id, Item{Version: version, Value: value})
		if !bytes.Equal(given, value) {
			t.Error("the store's memory was written to")
		}
		if (err == nil) != (bytes.Equal(value, item.Value) && version == 3) {
			t.Errorf("openRecord: %v, %v", rec, err)
		}
		if err != nil && !errors.Is(err, errUnreadable) {
			t.Errorf("error %v", err)
		}
	})
}

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

// FuzzParseSecret: each secret has one spelling.
func FuzzParseSecret(f *testing.F) {
	good := testSecret(1).Cookie()
	f.Add(good)
	f.Add(good[:42])
	f.Add(good + "=")
	f.Add(good[:20] + "\n" + good[21:])
	f.Add("")
	f.Fuzz(func(t *testing.T, cookie string) {
		if secret, ok := ParseSecret(cookie); ok && secret.Cookie() != cookie {
			t.Errorf("%q is another spelling of %q", cookie, secret.Cookie())
		}
	})
}

// FuzzOpenAttempt: no cookie opens that was not sealed.
func FuzzOpenAttempt(f *testing.F) {
	site := testSite(f, testKey(1))
	good := goldenAttempt(f)
	f.Add(goldenAttemptCookie, good)
	f.Add("other", good)
	f.Add(goldenAttemptCookie, good[:len(good)-1])
	f.Add(goldenAttemptCookie, good+"A")
	f.Add(goldenAttemptCookie, "")
	f.Add(goldenAttemptCookie, "AQ")
	f.Fuzz(func(t *testing.T, name, value string) {
		// The decoder skips line ends, which no Cookie header can hold.
		value = strings.NewReplacer("\n", "", "\r", "").Replace(value)
		if _, ok := site.OpenAttempt(name, value); ok && (name != goldenAttemptCookie || value != good) {
			t.Errorf("%q opens under %q", value, name)
		}
	})
}
