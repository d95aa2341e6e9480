package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// FuzzOpenRecord: bytes of the store open only if they are the sealed record. Otherwise
// the error is ErrUnreadable.
func FuzzOpenRecord(f *testing.F) {
	site, secret := testSite(f, testKey(1), testKey(2)), testSecret(1)
	// A golden record, because each fuzzing process would seal with other nonces.
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
			t.Error("opening changed the store's memory, want it unchanged")
		}
		if (err == nil) != (bytes.Equal(value, item.Value) && version == 3) {
			t.Errorf("opening: got %v, error %v, want success for the sealed record only", rec, err)
		}
		if err != nil && !errors.Is(err, ErrUnreadable) {
			t.Errorf("opening: got error %v, want ErrUnreadable", err)
		}
	})
}

// FuzzParseSecret: each secret has exactly one encoding.
func FuzzParseSecret(f *testing.F) {
	good := testSecret(1).Cookie()
	f.Add(good)
	f.Add(good[:42])
	f.Add(good + "=")
	f.Add(good[:20] + "\n" + good[21:])
	f.Add("")
	f.Fuzz(func(t *testing.T, cookie string) {
		if secret, ok := ParseSecret(cookie); ok && secret.Cookie() != cookie {
			t.Errorf("%q decodes to the secret of %q, want a failure", cookie, secret.Cookie())
		}
	})
}

// FuzzOpenFromBrowser: only the sealed cookie opens, and only under its name.
func FuzzOpenFromBrowser(f *testing.F) {
	site := testSite(f, testKey(1))
	good := goldenCookie(f)
	f.Add(goldenCookieName, good)
	f.Add("other", good)
	f.Add(goldenCookieName, good[:len(good)-1])
	f.Add(goldenCookieName, good+"A")
	f.Add(goldenCookieName, "")
	f.Add(goldenCookieName, "AQ")
	f.Fuzz(func(t *testing.T, name, value string) {
		// A Cookie header contains no line ends, which the decoder would skip.
		value = strings.NewReplacer("\n", "", "\r", "").Replace(value)
		if _, ok := site.OpenFromBrowser(name, value); ok && (name != goldenCookieName || value != good) {
			t.Errorf("%q under %q: got success, want failure", value, name)
		}
	})
}

// FuzzParseKey: a text decodes to its bytes or to an error that does not quote the text.
func FuzzParseKey(f *testing.F) {
	good := testKey(1).Encode()
	for _, text := range []string{good, good + "=", " " + good + "\n", good[:42], good + "A", strings.ReplaceAll(good, "A", "+"), good + "AAAA", strings.Repeat("A", 43), "changeme", good[:20] + "\n" + good[20:], ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParseKey(text)
		if err != nil {
			if key != (Key{}) && len(text) > 8 && strings.Contains(err.Error(), strings.TrimSpace(text)) {
				t.Errorf("ParseKey: got error %q, want one without the text", err)
			}
			return
		}
		if whole, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(text), "=")); err != nil || string(whole) != string(key[:]) {
			t.Errorf("%q decodes to another key than base64url, which has %d bytes, error %v", text, len(whole), err)
		}
		again, err := ParseKey(key.Encode())
		if err != nil || again != key {
			t.Errorf("ParseKey of the encoded key of %q: got error %v, want the same key", text, err)
		}
		if _, err := NewKeyRing(key, again); err == nil {
			t.Error("NewKeyRing with a key twice: got nil, want an error")
		}
	})
}

// FuzzParseAnnouncement: a decoded announcement encodes to the same first bytes.
func FuzzParseAnnouncement(f *testing.F) {
	f.Add(encodeAnnouncement(session.Holder{1}, mustRing(f, testKey(1), testKey(2))))
	f.Add(encodeAnnouncement(session.Holder{1}, nil))
	f.Add([]byte{announcementVersion})
	f.Add(append(encodeAnnouncement(session.Holder{2}, mustRing(f, testKey(3))), "of a later release"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, keys, ok := parseAnnouncement(b)
		if !ok {
			return
		}
		again := append([]byte{announcementVersion}, from[:]...)
		again = append(again, byte(len(keys)))
		for _, k := range keys {
			again = append(again, k[:]...)
		}
		if len(keys) > maxKeys || !strings.HasPrefix(string(b), string(again)) {
			t.Errorf("%x decodes to the announcement %x", b, again)
		}
	})
}
