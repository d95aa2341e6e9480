package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// FuzzOpenRecord: whatever the store returns, it is the record as it was sealed
// or none.
func FuzzOpenRecord(f *testing.F) {
	site, secret := testSite(f, testKey(1), testKey(2)), testSecret(1)
	// Not sealed here: each fuzzing process would draw other nonces.
	id, item := site.Ref(secret).ID, session.Item{Version: 3, Value: goldenValue(f)}
	f.Add(item.Value, uint64(3))
	f.Add(item.Value, uint64(4))
	f.Add(item.Value[:headSize+4], uint64(3))
	f.Add(item.Value[:len(item.Value)-1], uint64(3))
	f.Add([]byte(sealMagic), uint64(0))
	f.Add(append([]byte(sealMagic+"\x01\x01"), make([]byte, 300)...), uint64(1))
	f.Add(append(bytes.Clone(item.Value[:headSize]), bytes.Repeat([]byte{0xff}, 100)...), uint64(3))
	f.Fuzz(func(t *testing.T, value []byte, version uint64) {
		given := bytes.Clone(value)
		rec, err := openParts(site, Ref{ID: id, Secret: secret}, session.Item{Version: version, Value: value})
		if !bytes.Equal(given, value) {
			t.Error("the store's memory was written to")
		}
		if (err == nil) != (bytes.Equal(value, item.Value) && version == 3) {
			t.Errorf("openRecord: %v, %v", rec, err)
		}
		if err != nil && !errors.Is(err, ErrUnreadable) {
			t.Errorf("error %v", err)
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
		if _, ok := site.OpenFromBrowser(name, value); ok && (name != goldenAttemptCookie || value != good) {
			t.Errorf("%q opens under %q", value, name)
		}
	})
}

// FuzzParseKey: a key has one meaning, and an error does not repeat it.
func FuzzParseKey(f *testing.F) {
	good := testKey(1).Encode()
	for _, text := range []string{good, good + "=", " " + good + "\n", good[:42], good + "A", strings.ReplaceAll(good, "A", "+"), good + "AAAA", strings.Repeat("A", 43), "changeme", good[:20] + "\n" + good[20:], ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseKey(text)
		if err != nil {
			if key != (Key{}) && len(text) > 8 && strings.Contains(err.Error(), strings.TrimSpace(text)) {
				t.Errorf("error %q", err)
			}
			return
		}
		if whole, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(text), "=")); err != nil || string(whole) != string(key[:]) {
			t.Errorf("%q is taken for a key of %d bytes, %v", text, len(whole), err)
		}
		again, err := ParseKey(key.Encode())
		if err != nil || again != key {
			t.Errorf("%q is a key whose own spelling is not: %v", text, err)
		}
		if _, err := NewKeyRing(key, again); err == nil {
			t.Error("the same key is taken twice")
		}
	})
}

// FuzzParseKeyNote: a note is read as it was written, or not at all.
func FuzzParseKeyNote(f *testing.F) {
	f.Add(keyNote(session.Holder{1}, mustRing(f, testKey(1), testKey(2))))
	f.Add(keyNote(session.Holder{1}, nil))
	f.Add([]byte{keyNoteVersion})
	f.Add(append(keyNote(session.Holder{2}, mustRing(f, testKey(3))), "of a later release"...))
	f.Fuzz(func(t *testing.T, note []byte) {
		from, keys, ok := parseKeyNote(note)
		if !ok {
			return
		}
		again := append([]byte{keyNoteVersion}, from[:]...)
		again = append(again, byte(len(keys)))
		for _, k := range keys {
			again = append(again, k[:]...)
		}
		if len(keys) > maxKeys || !strings.HasPrefix(string(note), string(again)) {
			t.Errorf("%x is read as %x", note, again)
		}
	})
}
