package session

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
			created: at(0), seen: at(60), end: at(86400),
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

func testSite(t testing.TB, keys ...Key) *Site {
	t.Helper()
	ring, err := NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return NewSite(ring, "https://as.example.com", "client", "cookie")
}

// sealFull seals the full record as version 3.
func sealFull(t testing.TB, site *Site, secret Secret) (ID, Item) {
	t.Helper()
	id := site.ID(secret)
	value, err := site.sealRecord(secret, id, fullRecord(), 3)
	if err != nil {
		t.Fatal(err)
	}
	return id, Item{Version: 3, Value: value}
}

func TestRecordOpensAsSealed(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id, item := sealFull(t, site, secret)
	got, err := site.openRecord(secret, id, item)
	if err != nil {
		t.Fatal(err)
	}
	want := fullRecord()
	want.version = 3
	if diff := cmp.Diff(want, got, compareRecords); diff != "" {
		t.Errorf("record differs (-sealed +opened):\n%s", diff)
	}
	h, err := site.openHot(secret, id, item)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.hot, h, compareRecords); diff != "" {
		t.Errorf("hot part differs (-sealed +opened):\n%s", diff)
	}
}

// doesNotOpen checks that nothing of an item can be read, whole or in part. A
// damaged cold part leaves the hot part readable.
func doesNotOpen(t *testing.T, what string, site *Site, secret Secret, id ID, item Item, hotToo bool) {
	t.Helper()
	if rec, err := site.openRecord(secret, id, item); !errors.Is(err, errUnreadable) || rec != nil {
		t.Errorf("%s: the record opens: %v, %v", what, rec, err)
	}
	if _, err := site.openHot(secret, id, item); hotToo && !errors.Is(err, errUnreadable) {
		t.Errorf("%s: the hot part opens: %v", what, err)
	}
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id, item := sealFull(t, site, secret)
	whole := item.Value
	endOfHot := len(whole) - gcmOverhead - len(fullRecord().cold.encode())
	for i := range whole {
		for bit := range 8 {
			item.Value = bytes.Clone(whole)
			item.Value[i] ^= 1 << bit
			doesNotOpen(t, "flipped a bit", site, secret, id, item, i < endOfHot)
		}
	}
	for n := range whole {
		item.Value = whole[:n:n]
		doesNotOpen(t, "truncated", site, secret, id, item, n < endOfHot)
	}
	for _, more := range [][]byte{{0}, bytes.Repeat([]byte{'x'}, 40), make([]byte, 10<<20)} {
		item.Value = append(bytes.Clone(whole), more...)
		doesNotOpen(t, "lengthened", site, secret, id, item, false)
	}
}

// TestMovedRecords moves a good record to every place where it does not belong.
func TestMovedRecords(t *testing.T) {
	a, b := testKey(1), testKey(2)
	site, secret := testSite(t, a), testSecret(1)
	id, item := sealFull(t, site, secret)
	ring, err := NewKeyRing(a)
	if err != nil {
		t.Fatal(err)
	}
	swapped := item
	hotEnd := headSize + 4 + gcmOverhead + len(fullRecord().hot.encode())
	swapped.Value = append(bytes.Clone(item.Value[:headSize+4]), item.Value[hotEnd:]...)
	swapped.Value = append(swapped.Value, item.Value[headSize+4:hotEnd]...)
	coldLen := len(item.Value) - hotEnd
	swapped.Value[headSize+2], swapped.Value[headSize+3] = byte(coldLen>>8), byte(coldLen)

	older := item
	older.Version = 4
	renumbered := older
	renumbered.Value = bytes.Clone(item.Value)
	renumbered.Value[4+keyIDSize+7] = 4

	// The hot part of one version with the cold part of another.
	mixed := item
	next, err := site.sealRecord(secret, id, fullRecord(), 4)
	if err != nil {
		t.Fatal(err)
	}
	mixed.Value = append(bytes.Clone(item.Value[:hotEnd]), next[hotEnd:]...)

	tests := []struct {
		name   string
		site   *Site
		secret Secret
		id     ID
		item   Item
	}{
		{"another secret at the same place", site, testSecret(2), id, item},
		{"another session's place", site, secret, site.ID(testSecret(2)), item},
		{"another session's place and secret", site, testSecret(2), site.ID(testSecret(2)), item},
		{"another issuer", NewSite(ring, "https://other.example.com", "client", "cookie"), secret, id, item},
		{"another client", NewSite(ring, "https://as.example.com", "other", "cookie"), secret, id, item},
		{"another cookie", NewSite(ring, "https://as.example.com", "client", "other"), secret, id, item},
		{"names that run together alike", NewSite(ring, "https://as.example.comclient", "", "cookie"), secret, id, item},
		{"another key", testSite(t, b), secret, id, item},
		{"another version in the store", site, secret, id, older},
		{"another version in the head", site, secret, id, renumbered},
		{"parts swapped", site, secret, id, swapped},
		{"nothing", site, secret, id, Item{Version: 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doesNotOpen(t, tt.name, tt.site, tt.secret, tt.id, tt.item, true)
		})
	}
	doesNotOpen(t, "parts of two versions", site, secret, id, mixed, false)
}

// TestKeyCommitmentIsChecked forges a record that is sound but for the
// commitment: who can make one ciphertext open under two keys gains nothing.
func TestKeyCommitmentIsChecked(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id, item := sealFull(t, site, secret)
	forge := func(head []byte) Item {
		key, err := site.recordKey(site.keys.Load().seals, secret, id)
		if err != nil {
			t.Fatal(err)
		}
		aad := site.recordAAD(head, id)
		rec := fullRecord()
		hotPart := key.aead.Seal(nil, nil, rec.hot.encode(), append(bytes.Clone(aad), 'h'))
		value := binary.BigEndian.AppendUint32(bytes.Clone(head), uint32(len(hotPart)))
		value = append(value, hotPart...)
		return Item{Version: 3, Value: key.aead.Seal(value, nil, rec.cold.encode(), append(bytes.Clone(aad), 'c'))}
	}
	head := bytes.Clone(item.Value[:headSize])
	if _, err := site.openRecord(secret, id, forge(head)); err != nil {
		t.Fatalf("the forger does not know the format: %v", err)
	}
	for i := headSize - commitmentSize; i < headSize; i++ {
		forged := bytes.Clone(head)
		forged[i] ^= 1
		doesNotOpen(t, "another commitment", site, secret, id, forge(forged), true)
	}
}

// TestOversizedRecordIsRefused: what could not be read back is not written.
func TestOversizedRecordIsRefused(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id := site.ID(secret)
	rec := fullRecord()
	overhead := len(mustSeal(t, site, secret, rec)) - len(rec.idToken)
	rec.idToken = strings.Repeat("i", maxSealed-overhead-4)
	value := mustSeal(t, site, secret, rec)
	if _, err := site.openRecord(secret, id, Item{Version: 1, Value: value}); err != nil {
		t.Errorf("a record of %d bytes: %v", len(value), err)
	}
	rec.idToken += strings.Repeat("i", 16)
	_, err := site.sealRecord(secret, id, rec, 1)
	if err == nil {
		t.Fatal("a record over the limit was sealed")
	}
	if strings.Contains(err.Error(), "iiii") || strings.Contains(err.Error(), rec.refreshToken) {
		t.Errorf("the error holds a token: %v", err)
	}
}

func mustSeal(t testing.TB, site *Site, secret Secret, rec *record) []byte {
	t.Helper()
	value, err := site.sealRecord(secret, site.ID(secret), rec, 1)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestStoredBytesTellNothing: neither what is sealed nor any eight bytes of the
// cookie can be found in what the store gets, and nothing in it repeats.
func TestStoredBytesTellNothing(t *testing.T) {
	site, secret := testSite(t, testKey(1)), NewSecret()
	id, item := sealFull(t, site, secret)
	seen := append(bytes.Clone(id[:]), item.Value...)
	canaries := [][]byte{
		[]byte("access-token"), []byte("refresh-token"), []byte("id-token"), []byte("subject-"), []byte("jane@"), []byte("sid-08"),
	}
	key := testKey(1)
	for _, source := range [][]byte{secret[:], []byte(secret.Cookie()), key[:], []byte(key.Encode())} {
		for i := 0; i+8 <= len(source); i++ {
			canaries = append(canaries, source[i:i+8])
		}
	}
	for _, canary := range canaries {
		if bytes.Contains(seen, canary) {
			t.Errorf("the store sees %q", canary)
		}
	}
	_, again := sealFull(t, site, secret)
	if bytes.Equal(item.Value[headSize:], again.Value[headSize:]) {
		t.Error("the same record sealed twice gives the same bytes")
	}
	other := NewSecret()
	otherID, otherItem := sealFull(t, site, other)
	if id == otherID {
		t.Error("two secrets have one ID")
	}
	// Magic, version, algorithm, key name and generation are alike, no more.
	for i := 4 + keyIDSize + 8; i+8 <= len(item.Value); i++ {
		if i != headSize && bytes.Equal(item.Value[i:i+8], otherItem.Value[i:i+8]) {
			t.Errorf("two sessions share the bytes at %d", i)
		}
	}
}

func TestKeyRingRotation(t *testing.T) {
	a, b := testKey(1), testKey(2)
	secret := testSecret(1)
	onlyA, both, onlyB := testSite(t, a), testSite(t, b, a), testSite(t, b)
	id, item := sealFull(t, onlyA, secret)
	rec, err := both.openRecord(secret, id, item)
	if err != nil {
		t.Fatalf("a record of the old key: %v", err)
	}
	doesNotOpen(t, "old key dropped", onlyB, secret, id, item, true)
	item.Version++
	if item.Value, err = both.sealRecord(secret, id, rec, item.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := onlyB.openRecord(secret, id, item); err != nil {
		t.Errorf("the record was not sealed anew under the first key: %v", err)
	}
	doesNotOpen(t, "new key unknown", onlyA, secret, id, item, true)
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
	got, err := site.openRecord(secret, site.ID(secret), Item{Version: 3, Value: goldenRecord(t)})
	if err != nil {
		t.Fatal(err)
	}
	want := fullRecord()
	want.version = 3
	if diff := cmp.Diff(want, got, compareRecords); diff != "" {
		t.Errorf("record differs (-written +read):\n%s", diff)
	}
}
