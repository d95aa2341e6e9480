package keeper

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func genTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "unset") {
			return time.Time{}
		}
		return time.UnixMilli(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "ms"))
	})
}

// genBytes draws nil in place of an empty slice: both are encoded as no field.
func genBytes() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		if len(b) == 0 {
			return nil
		}
		return b
	})
}

// genUnknown draws fields with numbers above known.
func genUnknown(known uint64) *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		var w fieldWriter
		for range rapid.IntRange(0, 3).Draw(t, "unknown fields") {
			w.bytes(rapid.Uint64Min(known+1).Draw(t, "field"), genBytes().Draw(t, "value"))
		}
		return w
	})
}

func genRecord() *rapid.Generator[record] {
	return rapid.Custom(func(t *rapid.T) record {
		text := rapid.String()
		token := accessToken{
			value: text.Draw(t, "token"), obtained: genTime().Draw(t, "obtained"), expires: genTime().Draw(t, "expires"),
			usableUntil: genTime().Draw(t, "usable until"), refreshAt: genTime().Draw(t, "refresh at"),
			unknownFields: genUnknown(fieldTokenRefreshAt).Draw(t, "unknown token fields"),
		}
		return record{
			hot: hot{
				created: genTime().Draw(t, "created"), lastUsed: genTime().Draw(t, "last used"), end: genTime().Draw(t, "end"),
				subject: text.Draw(t, "subject"), claims: genBytes().Draw(t, "claims"), rotation: rapid.Uint64().Draw(t, "rotation"),
				token: token, sessionExpiry: genTime().Draw(t, "session expiry"), refreshEnd: genTime().Draw(t, "refresh end"),
				refreshEndKnown: genTime().Draw(t, "refresh end known"),
				unknownFields:   genUnknown(fieldRefreshEndKnown).Draw(t, "unknown hot fields"),
			},
			cold: cold{
				refreshToken: text.Draw(t, "refresh token"), refreshExpires: genTime().Draw(t, "refresh expires"),
				idToken: text.Draw(t, "ID token"), sid: text.Draw(t, "sid"), nonce: text.Draw(t, "nonce"),
				rotates: rapid.Bool().Draw(t, "rotates"), unclear: rapid.Bool().Draw(t, "unclear"),
				userInfo: genBytes().Draw(t, "UserInfo"), userAgent: text.Draw(t, "User-Agent"), order: rapid.Uint64().Draw(t, "order"),
				unknownFields: genUnknown(fieldOrder).Draw(t, "unknown cold fields"),
			},
		}
	})
}

func TestDecodedRecordEqualsEncodedRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRecord().Draw(t, "record")
		gotHot, ok := decodeHot(want.hot.encode())
		if !ok {
			t.Fatal("decoding the hot part failed")
		}
		gotCold, ok := decodeCold(want.cold.encode())
		if !ok {
			t.Fatal("decoding the cold part failed")
		}
		got := record{hot: gotHot, cold: gotCold}
		if diff := cmp.Diff(want, got, compareRecords, emptyIsNil); diff != "" {
			t.Fatalf("record differs (-encoded +decoded):\n%s", diff)
		}
		if !got.covers(&want) {
			t.Fatal("the decoded record does not cover the encoded one")
		}
	})
}

var emptyIsNil = cmp.Transformer("nil", func(b []byte) string { return string(b) })

// TestDecodingRefusesTruncatedParts: a part that ends within a field is damaged.
func TestDecodingRefusesTruncatedParts(t *testing.T) {
	rec := fullRecord()
	for name, part := range map[string][]byte{"hot": rec.hot.encode(), "cold": rec.cold.encode(), "token": rec.token.encode()} {
		decodable := 0
		for n := range part {
			ok := false
			switch name {
			case "hot":
				_, ok = decodeHot(part[:n])
			case "cold":
				_, ok = decodeCold(part[:n])
			case "token":
				_, ok = decodeAccessToken(part[:n])
			}
			if ok {
				decodable++
			}
		}
		// A prefix is decodable where a field begins: 7, 4 and 5 fields.
		want := map[string]int{"hot": 7, "cold": 4, "token": 5}[name]
		if decodable != want {
			t.Errorf("%s: got %d decodable prefixes, want %d", name, decodable, want)
		}
	}
	huge := binary.AppendUvarint([]byte{fieldSubject}, 1<<63)
	if _, ok := decodeHot(huge); ok {
		t.Error("decoding accepted a field longer than its part")
	}
	if _, ok := decodeHot([]byte{fieldAccessToken, 2, fieldTokenValue, 9}); ok {
		t.Error("decoding accepted a truncated token in a complete part")
	}
	if _, ok := decodeHot(bytes.Repeat([]byte{0x80}, 20)); ok {
		t.Error("decoding accepted an endless field number")
	}
}

// TestUnknownFieldsSurviveRewriting: a record with fields of a later release keeps them
// when this release changes it.
func TestUnknownFieldsSurviveRewriting(t *testing.T) {
	rec := recordWithUnknownFields()
	h, ok := decodeHot(rec.hot.encode())
	if !ok {
		t.Fatal("decoding the hot part failed")
	}
	if got, want := h.token.value, rec.token.value; got != want {
		t.Errorf("got access token %q, want %q", got, want)
	}
	h.lastUsed, h.token.value = time.Now(), "access-token-refreshed"
	again := h.encode()
	inHot, inToken, inCold := laterFields()
	for _, want := range [][]byte{inHot, inToken} {
		if !bytes.Contains(again, want) {
			t.Errorf("got hot part %q, want %q in it", again, want)
		}
	}
	c, ok := decodeCold(rec.cold.encode())
	if !ok {
		t.Fatal("decoding the cold part failed")
	}
	c.refreshToken = "refresh-token-rotated"
	if again := c.encode(); !bytes.Contains(again, inCold) {
		t.Errorf("got cold part %q, want %q in it", again, inCold)
	}
}

func TestRecordCoversOnlyEqualContentAndEarlierUse(t *testing.T) {
	changes := map[string]func(*record){
		"rotation":      func(r *record) { r.rotation++ },
		"access token":  func(r *record) { r.token.value += "x" },
		"refresh at":    func(r *record) { r.token.refreshAt = time.Time{} },
		"refresh token": func(r *record) { r.refreshToken += "x" },
		"ID token":      func(r *record) { r.idToken = "" },
		"claims":        func(r *record) { r.claims = []byte("{}") },
		"UserInfo":      func(r *record) { r.userInfo = []byte("{}") },
		"User-Agent":    func(r *record) { r.userAgent = "other" },
		"order":         func(r *record) { r.order++ },
		"unknown field": func(r *record) { r.cold.unknownFields = []byte{99, 1, 'x'} },
	}
	for name, change := range changes {
		a, b := fullRecord(), fullRecord()
		change(b)
		if a.covers(b) {
			t.Errorf("a record covers another one with a different %s", name)
		}
	}
	a, b := fullRecord(), fullRecord()
	b.lastUsed = b.lastUsed.Add(time.Hour)
	b.version = 99
	if a.covers(b) {
		t.Error("a record covers one with a later use")
	}
	if !b.covers(a) {
		t.Error("a record with a later use does not cover the earlier one")
	}
	if got, want := a.lastUsed, fullRecord().lastUsed; !got.Equal(want) {
		t.Errorf("covers changed the last use: got %v, want %v", got, want)
	}
}
