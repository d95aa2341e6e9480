package session

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
)

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
	f.Add(keyNote(Holder{1}, mustRing(f, testKey(1), testKey(2))))
	f.Add(keyNote(Holder{1}, nil))
	f.Add([]byte{keyNoteVersion})
	f.Add(append(keyNote(Holder{2}, mustRing(f, testKey(3))), "of a later release"...))
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

// noServer is an authorization server that cannot be reached.
type noServer struct{}

func (noServer) Refresh(context.Context, string, func() error) Answer {
	return Answer{Outcome: Unavailable, Err: errors.New("no connection")}
}

func (noServer) Identify(_ context.Context, current Identity, _ Tokens) (Identity, error) {
	return current, nil
}

func (noServer) Discard(context.Context, Tokens) {}

// FuzzStoredSession: whatever an instance with our keys has written, be it of
// another release or broken, a session that is served has a token that may still
// be used, and is not over.
func FuzzStoredSession(f *testing.F) {
	now := time.Now()
	rec := fullRecord()
	rec.created, rec.seen, rec.end = now, now, now.Add(time.Hour)
	rec.token.obtained, rec.token.refreshAt = now, now.Add(time.Hour)
	rec.token.expires, rec.token.usableUntil = now.Add(time.Hour), now.Add(time.Hour)
	f.Add(rec.hot.encode(), rec.cold.encode())
	over := *rec
	over.token.usableUntil = now.Add(-time.Second)
	f.Add(over.hot.encode(), rec.cold.encode())
	over = *rec
	over.seen = time.UnixMilli(1 << 62)
	over.end = time.UnixMilli(-1 << 62)
	f.Add(over.hot.encode(), []byte{})
	over.end = time.UnixMilli(1 << 62)
	over.token.usableUntil = time.UnixMilli(1<<63 - 1)
	f.Add(over.hot.encode(), []byte{fieldRefreshToken, 200})
	f.Add([]byte{}, []byte{})
	f.Add([]byte{fieldEnd, 1, 2}, binary.AppendUvarint(nil, 1<<63))

	site, secret := testSite(f, testKey(1)), testSecret(1)
	id := site.ID(secret)
	f.Fuzz(func(t *testing.T, hotPart, coldPart []byte) {
		value, err := site.seal(secret, id, nil, 1, hotPart, coldPart)
		if err != nil {
			return // more than a record may hold
		}
		store := newFakeStore()
		store.put(id, Item{Version: 1, Expires: time.Now().Add(time.Hour), Value: value})
		vault := NewVault(store)
		keeper := mustKeeper(Config{
			Vault: vault, Site: site, Refresher: noServer{},
			IdleTimeout: time.Hour, MaxLifetime: 2 * time.Hour, RefreshTimeout: time.Second, DefaultTokenLifetime: time.Minute,
			Observe: func(Event) {},
		})
		stored, ok := decodeHot(hotPart)
		check := func(call string, s *Session, err error) {
			switch now := time.Now(); {
			case err == nil && !ok:
				t.Errorf("%s: a record that cannot be read is served: %+v", call, s)
			case err == nil && (!now.Before(s.End) || !now.Before(s.IdleEnd.Add(keeper.touchEvery))):
				t.Errorf("%s: served until %v, idle until %v", call, s.End, s.IdleEnd)
			case err == nil && (s.AccessToken != stored.token.value || s.Subject != stored.subject):
				t.Errorf("%s: served as %+v", call, s)
			case err == nil && call == "Fresh" && !now.Before(stored.token.usableUntil):
				t.Errorf("%s: a token that is usable until %v is served", call, stored.token.usableUntil)
			}
		}
		s, err := keeper.Peek(t.Context(), secret)
		check("Peek", s, err)
		s, err = keeper.Fresh(t.Context(), secret)
		check("Fresh", s, err)
		if err := vault.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
