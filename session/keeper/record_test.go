package keeper

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// compareRecords compares all fields except the key that a record was opened with.
var compareRecords = cmp.Options{
	cmp.AllowUnexported(record{}, hot{}, cold{}, accessToken{}),
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".key" }, cmp.Ignore()),
}

// fullRecord returns the record in testdata/record_v1.hex: every field of the first release.
func fullRecord() *record {
	at := func(s int64) time.Time { return time.UnixMilli(1_800_000_000_000 + 1000*s) }
	return &record{
		hot: hot{
			created: at(0), lastUsed: at(60), end: at(86400),
			subject: "subject-248289761001", claims: []byte(`{"email":"jane@example.com"}`), rotation: 7,
			token: accessToken{
				value: "access-token-SlAV32hkKG", obtained: at(10), expires: at(310), usableUntil: at(300), refreshAt: at(240),
			},
		},
		cold: cold{
			refreshToken: "refresh-token-8xLOxBtZp8", refreshExpires: at(7200), idToken: "id-token-eyJhbGciOi", sid: "sid-08a5019c",
		},
	}
}

// recordWithUnknownFields returns the record in testdata/record_v1_full.hex: every field
// but those of recordWithServerLimits and recordWithLabel, and unknown fields in each part, as a later
// release may write them.
func recordWithUnknownFields() *record {
	rec := fullRecord()
	rec.nonce, rec.rotates, rec.unclear = "nonce-n-0S6_WzA2Mj", true, true
	rec.userInfo = []byte(`{"email":"jane@example.com"}`)
	rec.hot.unknownFields, rec.token.unknownFields, rec.cold.unknownFields = laterFields()
	return rec
}

// recordWithServerLimits returns the record in testdata/record_v1_serverlimits.hex: the
// fields for the lifetimes that the authorization server sets.
func recordWithServerLimits() *record {
	rec := recordWithUnknownFields()
	rec.sessionExpiry, rec.refreshEnd = time.UnixMilli(1_800_000_000_000+1000*3600), rec.refreshExpires
	return rec
}

// recordWithLabel returns the record in testdata/record_v1_label.hex: the fields for the
// label, in addition.
func recordWithLabel() *record {
	rec := recordWithServerLimits()
	rec.userAgent, rec.order = "Mozilla/5.0 (X11; Linux x86_64)", 1_800_000_000_001
	return rec
}

// recordWithKnownRefreshEnd returns the record in testdata/record_v1_refreshend.hex: the
// expiry of the refresh token belongs to the access token.
func recordWithKnownRefreshEnd() *record {
	rec := recordWithServerLimits()
	rec.refreshEndKnown = rec.token.obtained
	return rec
}

// laterFields returns fields of a later release: one in each part, and in the hot part
// also an access token for a resource of its own.
func laterFields() (inHot, inToken, inCold []byte) {
	var h, t, c, resource fieldWriter
	h.string(200, "hot field")
	t.string(201, "token field")
	c.string(202, "cold field")
	resource.string(fieldTokenResource, "https://api.example.com")
	resource.string(fieldTokenValue, "access-token-for-the-resource")
	h.bytes(fieldAccessToken, resource)
	return h, t, c
}

func testSite(t testing.TB, keys ...seal.Key) *seal.Site {
	t.Helper()
	ring, err := seal.NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return seal.NewSite(ring, "https://as.example.com", "client", "cookie")
}

func TestSealedRecordOpensUnchanged(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	ref := site.Ref(secret)
	value, err := sealRecord(site, ref, fullRecord(), 3)
	if err != nil {
		t.Fatal(err)
	}
	item := session.Item{Version: 3, Value: value}
	got, err := openRecord(site, ref, item)
	if err != nil {
		t.Fatal(err)
	}
	want := fullRecord()
	want.version = 3
	if diff := cmp.Diff(want, got, compareRecords); diff != "" {
		t.Errorf("record differs (-sealed +opened):\n%s", diff)
	}
	h, err := openHot(site, ref, item)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.hot, h, compareRecords); diff != "" {
		t.Errorf("hot part differs (-sealed +opened):\n%s", diff)
	}
}

// goldenVersion is the item version that the golden records were sealed as.
const goldenVersion = 3

// goldenRecords are records sealed by the code of earlier releases, by their file in
// testdata. An update loses sessions unless the present code opens them.
//
// A golden file is written once and never changed. When the record gets a new field, add an
// entry record_v1_<field>.hex whose record has the field, run
//
//	go test ./session/keeper -run TestGoldenRecordsOpen -write-golden
//
// which writes the files that are missing, and commit the new file. The number is the
// version in the head of a sealed record (package seal).
var goldenRecords = map[string]func() *record{
	"record_v1.hex":      fullRecord,
	"record_v1_full.hex": recordWithUnknownFields,

	"record_v1_serverlimits.hex": recordWithServerLimits,
	"record_v1_label.hex":        recordWithLabel,
	"record_v1_refreshend.hex":   recordWithKnownRefreshEnd,
}

var writeGolden = flag.Bool("write-golden", false, "write golden records that have no file yet")

// goldenRecord returns the sealed value in a golden file.
func goldenRecord(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	value, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// writeMissingGolden seals a record with the tests' key and secret into a golden file,
// 48 bytes per line, if there is no file with that name.
func writeMissingGolden(t *testing.T, name string, rec *record) {
	t.Helper()
	site, secret := testSite(t, testKey(1)), testSecret(1)
	value, err := sealRecord(site, site.Ref(secret), rec, goldenVersion)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range slices.Chunk(value, 48) {
		text.WriteString(hex.EncodeToString(line) + "\n")
	}
	file, err := os.OpenFile(filepath.Join("testdata", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteString(text.String())
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenRecordsOpen(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	for name, record := range goldenRecords {
		t.Run(name, func(t *testing.T) {
			want := record()
			if *writeGolden {
				writeMissingGolden(t, name, want)
			}
			item := session.Item{Version: goldenVersion, Value: goldenRecord(t, name)}
			got, err := openRecord(site, site.Ref(secret), item)
			if err != nil {
				t.Fatal(err)
			}
			want.version = goldenVersion
			if diff := cmp.Diff(want, got, compareRecords); diff != "" {
				t.Errorf("record differs (-written +read):\n%s", diff)
			}
			// The plain text, too, so that two releases agree on the bytes.
			sealed, err := site.Open(site.Ref(secret), item)
			if err != nil {
				t.Fatal(err)
			}
			hotPart, hotErr := sealed.Hot()
			coldPart, coldErr := sealed.Cold()
			if err := errors.Join(hotErr, coldErr); err != nil {
				t.Fatal(err)
			}
			if encoded := got.hot.encode(); !bytes.Equal(encoded, hotPart) {
				t.Errorf("got hot part %x, want %x", encoded, hotPart)
			}
			if encoded := got.cold.encode(); !bytes.Equal(encoded, coldPart) {
				t.Errorf("got cold part %x, want %x", encoded, coldPart)
			}
		})
	}
}
