package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// parts are the two parts of a record in the clear.
type parts struct{ hot, cold string }

// fullParts returns parts with recognizable texts.
func fullParts() parts {
	return parts{
		hot:  "subject-248289761001 jane@example.com access-token-SlAV32hkKG",
		cold: "refresh-token-8xLOxBtZp8 id-token-eyJhbGciOi sid-08a5019c",
	}
}

func sealParts(site *Site, ref Ref, p parts, version uint64) ([]byte, error) {
	return site.Seal(ref, nil, version, []byte(p.hot), []byte(p.cold))
}

func openParts(site *Site, ref Ref, item session.Item) (*parts, error) {
	v, err := site.Open(ref, item)
	if err != nil {
		return nil, err
	}
	hot, err := v.Hot()
	if err != nil {
		return nil, err
	}
	cold, err := v.Cold()
	if err != nil {
		return nil, err
	}
	return &parts{string(hot), string(cold)}, nil
}

func openHotPart(site *Site, ref Ref, item session.Item) (string, error) {
	v, err := site.Open(ref, item)
	if err != nil {
		return "", err
	}
	hot, err := v.Hot()
	return string(hot), err
}

// sealFull seals the full record as version 3.
func sealFull(t testing.TB, site *Site, secret Secret) (session.ID, session.Item) {
	t.Helper()
	id := site.Ref(secret).ID
	value, err := sealParts(site, Ref{ID: id, Secret: secret}, fullParts(), 3)
	if err != nil {
		t.Fatal(err)
	}
	return id, session.Item{Version: 3, Value: value}
}

func TestPartsOpenAsSealed(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id, item := sealFull(t, site, secret)
	got, err := openParts(site, Ref{ID: id, Secret: secret}, item)
	if err != nil {
		t.Fatal(err)
	}
	if *got != fullParts() {
		t.Errorf("got %q, want %q", *got, fullParts())
	}
}

// doesNotOpen checks that nothing of an item can be read, whole or in part. A
// damaged cold part leaves the hot part readable.
func doesNotOpen(t *testing.T, what string, site *Site, secret Secret, id session.ID, item session.Item, hotToo bool) {
	t.Helper()
	if rec, err := openParts(site, Ref{ID: id, Secret: secret}, item); !errors.Is(err, ErrUnreadable) || rec != nil {
		t.Errorf("%s: the record opens: %v, %v", what, rec, err)
	}
	if _, err := openHotPart(site, Ref{ID: id, Secret: secret}, item); hotToo && !errors.Is(err, ErrUnreadable) {
		t.Errorf("%s: the hot part opens: %v", what, err)
	}
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id, item := sealFull(t, site, secret)
	whole := item.Value
	endOfHot := len(whole) - gcmOverhead - len(fullParts().cold)
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
	hotEnd := headSize + 4 + gcmOverhead + len(fullParts().hot)
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
	next, err := sealParts(site, Ref{ID: id, Secret: secret}, fullParts(), 4)
	if err != nil {
		t.Fatal(err)
	}
	mixed.Value = append(bytes.Clone(item.Value[:hotEnd]), next[hotEnd:]...)

	tests := []struct {
		name   string
		site   *Site
		secret Secret
		id     session.ID
		item   session.Item
	}{
		{"another secret at the same place", site, testSecret(2), id, item},
		{"another session's place", site, secret, site.Ref(testSecret(2)).ID, item},
		{"another session's place and secret", site, testSecret(2), site.Ref(testSecret(2)).ID, item},
		{"another issuer", NewSite(ring, "https://other.example.com", "client", "cookie"), secret, id, item},
		{"another client", NewSite(ring, "https://as.example.com", "other", "cookie"), secret, id, item},
		{"another cookie", NewSite(ring, "https://as.example.com", "client", "other"), secret, id, item},
		{"names that run together alike", NewSite(ring, "https://as.example.comclient", "", "cookie"), secret, id, item},
		{"another key", testSite(t, b), secret, id, item},
		{"another version in the store", site, secret, id, older},
		{"another version in the head", site, secret, id, renumbered},
		{"parts swapped", site, secret, id, swapped},
		{"nothing", site, secret, id, session.Item{Version: 3}},
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
	forge := func(head []byte) session.Item {
		key, err := site.recordKey(site.keys.Load().seals, Ref{ID: id, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		aad := site.recordAAD(head, id)
		rec := fullParts()
		hotPart := key.aead.Seal(nil, nil, []byte(rec.hot), append(bytes.Clone(aad), 'h'))
		value := binary.BigEndian.AppendUint32(bytes.Clone(head), uint32(len(hotPart)))
		value = append(value, hotPart...)
		return session.Item{Version: 3, Value: key.aead.Seal(value, nil, []byte(rec.cold), append(bytes.Clone(aad), 'c'))}
	}
	head := bytes.Clone(item.Value[:headSize])
	if _, err := openParts(site, Ref{ID: id, Secret: secret}, forge(head)); err != nil {
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
	id := site.Ref(secret).ID
	rec := fullParts()
	overhead := len(mustSeal(t, site, secret, rec)) - len(rec.cold)
	rec.cold = strings.Repeat("i", maxSealed-overhead-4)
	value := mustSeal(t, site, secret, rec)
	if _, err := openParts(site, Ref{ID: id, Secret: secret}, session.Item{Version: 1, Value: value}); err != nil {
		t.Errorf("a record of %d bytes: %v", len(value), err)
	}
	rec.cold += strings.Repeat("i", 16)
	_, err := sealParts(site, Ref{ID: id, Secret: secret}, rec, 1)
	if err == nil {
		t.Fatal("a record over the limit was sealed")
	}
	if strings.Contains(err.Error(), "iiii") || strings.Contains(err.Error(), "refresh-token") {
		t.Errorf("the error holds a token: %v", err)
	}
}

func mustSeal(t testing.TB, site *Site, secret Secret, rec parts) []byte {
	t.Helper()
	value, err := sealParts(site, Ref{ID: site.Ref(secret).ID, Secret: secret}, rec, 1)
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
	rec, err := openParts(both, Ref{ID: id, Secret: secret}, item)
	if err != nil {
		t.Fatalf("a record of the old key: %v", err)
	}
	doesNotOpen(t, "old key dropped", onlyB, secret, id, item, true)
	item.Version++
	if item.Value, err = sealParts(both, Ref{ID: id, Secret: secret}, *rec, item.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := openParts(onlyB, Ref{ID: id, Secret: secret}, item); err != nil {
		t.Errorf("the record was not sealed anew under the first key: %v", err)
	}
	doesNotOpen(t, "new key unknown", onlyA, secret, id, item, true)
}

// goldenValue returns a record that the first release sealed as version 3.
func goldenValue(t testing.TB) []byte {
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
