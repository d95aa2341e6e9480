package keeper

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// compareRecords looks at what is kept, exported or not.
var compareRecords = cmp.Options{
	cmp.AllowUnexported(record{}, hot{}, cold{}, accessToken{}),
	cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".key" }, cmp.Ignore()),
}

// fullRecord returns a record with something in every field.
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

func testSite(t testing.TB, keys ...seal.Key) *seal.Site {
	t.Helper()
	ring, err := seal.NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return seal.NewSite(ring, "https://as.example.com", "client", "cookie")
}

func TestRecordOpensAsSealed(t *testing.T) {
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

func goldenRecord(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "record_v1.hex"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestGoldenRecord opens a record that the first release has written. It must
// open for as long as that version is accepted.
func TestGoldenRecord(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	got, err := openRecord(site, site.Ref(secret), session.Item{Version: 3, Value: goldenRecord(t)})
	if err != nil {
		t.Fatal(err)
	}
	want := fullRecord()
	want.version = 3
	if diff := cmp.Diff(want, got, compareRecords); diff != "" {
		t.Errorf("record differs (-written +read):\n%s", diff)
	}
}
