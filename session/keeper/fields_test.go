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

// genBytes draws nil rather than an empty slice: the codec knows no difference.
func genBytes() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		if len(b) == 0 {
			return nil
		}
		return b
	})
}

// genRest draws fields that this release does not know.
func genRest(known uint64) *rapid.Generator[[]byte] {
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
			unknownFields: genRest(fieldTokenRefreshAt).Draw(t, "rest of token"),
		}
		return record{
			hot: hot{
				created: genTime().Draw(t, "created"), lastUsed: genTime().Draw(t, "seen"), end: genTime().Draw(t, "end"),
				subject: text.Draw(t, "subject"), claims: genBytes().Draw(t, "claims"), rotation: rapid.Uint64().Draw(t, "rotation"),
				token: token, unknownFields: genRest(fieldAccessToken).Draw(t, "rest of hot"),
			},
			cold: cold{
				refreshToken: text.Draw(t, "refresh token"), refreshExpires: genTime().Draw(t, "refresh expires"),
				idToken: text.Draw(t, "ID token"), sid: text.Draw(t, "sid"), nonce: text.Draw(t, "nonce"), rotates: rapid.Bool().Draw(t, "rotates"), unclear: rapid.Bool().Draw(t, "unclear"), userInfo: genBytes().Draw(t, "UserInfo"), unknownFields: genRest(fieldUserInfo).Draw(t, "rest of cold"),
			},
		}
	})
}

func TestCodecKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRecord().Draw(t, "record")
		gotHot, ok := decodeHot(want.hot.encode())
		if !ok {
			t.Fatal("the hot part cannot be read")
		}
		gotCold, ok := decodeCold(want.cold.encode())
		if !ok {
			t.Fatal("the cold part cannot be read")
		}
		got := record{hot: gotHot, cold: gotCold}
		if diff := cmp.Diff(want, got, compareRecords, emptyIsNil); diff != "" {
			t.Fatalf("record differs (-encoded +decoded):\n%s", diff)
		}
		if !got.covers(&want) {
			t.Fatal("the same record is not taken for the same")
		}
	})
}

var emptyIsNil = cmp.Transformer("nil", func(b []byte) string { return string(b) })

// TestCodecRefusesTornParts: a part that ends within a field is no part.
func TestCodecRefusesTornParts(t *testing.T) {
	rec := fullRecord()
	for name, part := range map[string][]byte{"hot": rec.hot.encode(), "cold": rec.cold.encode(), "token": rec.token.encode()} {
		ends := map[int]bool{}
		for n := range part {
			ok := false
			switch name {
			case "hot":
				_, ok = decodeHot(part[:n])
			case "cold":
				_, ok = decodeCold(part[:n])
			case "token":
				_, _, ok = decodeAccessToken(part[:n])
			}
			ends[n] = ok
		}
		whole := 0
		for _, ok := range ends {
			if ok {
				whole++
			}
		}
		// It can be read where a field ends: 7, 4 and 5 fields.
		want := map[string]int{"hot": 7, "cold": 4, "token": 5}[name]
		if whole != want {
			t.Errorf("%s: %d beginnings can be read, want %d", name, whole, want)
		}
	}
	huge := binary.AppendUvarint([]byte{fieldSubject}, 1<<63)
	if _, ok := decodeHot(huge); ok {
		t.Error("a field longer than its part is read")
	}
	if _, ok := decodeHot([]byte{fieldAccessToken, 2, fieldTokenValue, 9}); ok {
		t.Error("a torn token in a whole part is read")
	}
	if _, ok := decodeHot(bytes.Repeat([]byte{0x80}, 20)); ok {
		t.Error("a field number without end is read")
	}
}

// TestLaterReleasesFieldsSurvive writes a record with fields of a later
// release, lets this one change it, and looks for them.
func TestLaterReleasesFieldsSurvive(t *testing.T) {
	rec := fullRecord()
	var ofHot, ofToken, ofCold, other fieldWriter
	ofHot.string(200, "hot field")
	ofToken.string(201, "token field")
	ofCold.string(202, "cold field")
	// A token for a resource of its own, which this release does not use.
	other.string(fieldTokenResource, "https://api.example.com")
	other.string(fieldTokenValue, "access-token-for-the-resource")
	ofHot.bytes(fieldAccessToken, other)
	rec.hot.unknownFields, rec.token.unknownFields, rec.cold.unknownFields = ofHot, ofToken, ofCold

	h, ok := decodeHot(rec.hot.encode())
	if !ok {
		t.Fatal("the hot part cannot be read")
	}
	if h.token.value != rec.token.value {
		t.Errorf("the token is %q, want %q", h.token.value, rec.token.value)
	}
	h.lastUsed, h.token.value = time.Now(), "access-token-refreshed"
	again := h.encode()
	for _, want := range [][]byte{ofHot, ofToken} {
		if !bytes.Contains(again, want) {
			t.Errorf("%q is lost", want)
		}
	}
	c, ok := decodeCold(rec.cold.encode())
	if !ok {
		t.Fatal("the cold part cannot be read")
	}
	c.refreshToken = "refresh-token-rotated"
	if !bytes.Contains(c.encode(), ofCold) {
		t.Errorf("%q is lost", ofCold)
	}
}

func TestSameButSeen(t *testing.T) {
	changes := map[string]func(*record){
		"rotation":      func(r *record) { r.rotation++ },
		"access token":  func(r *record) { r.token.value += "x" },
		"refresh at":    func(r *record) { r.token.refreshAt = time.Time{} },
		"refresh token": func(r *record) { r.refreshToken += "x" },
		"ID token":      func(r *record) { r.idToken = "" },
		"claims":        func(r *record) { r.claims = []byte("{}") },
		"UserInfo":      func(r *record) { r.userInfo = []byte("{}") },
		"unknown field": func(r *record) { r.cold.unknownFields = []byte{99, 1, 'x'} },
	}
	for name, change := range changes {
		a, b := fullRecord(), fullRecord()
		change(b)
		if a.covers(b) {
			t.Errorf("a change of the %s is not seen", name)
		}
	}
	a, b := fullRecord(), fullRecord()
	b.lastUsed = b.lastUsed.Add(time.Hour)
	b.version = 99
	if a.covers(b) {
		t.Error("a record without the last use covers one that has it")
	}
	if !b.covers(a) || !a.lastUsed.Equal(fullRecord().lastUsed) {
		t.Error("a later use makes a record another one")
	}
}
