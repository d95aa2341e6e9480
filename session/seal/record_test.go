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

// fullParts returns parts with texts that a search for leaks can find.
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

// wantUnreadable checks that a record does not open, and its hot part alone neither if
// hotToo is true. A damaged cold part leaves the hot part readable.
func wantUnreadable(t *testing.T, name string, site *Site, secret Secret, id session.ID, item session.Item, hotToo bool) {
	t.Helper()
	if rec, err := openParts(site, Ref{ID: id, Secret: secret}, item); !errors.Is(err, ErrUnreadable) || rec != nil {
		t.Errorf("%s: got record %v, error %v, want ErrUnreadable", name, rec, err)
	}
	if _, err := openHotPart(site, Ref{ID: id, Secret: secret}, item); hotToo && !errors.Is(err, ErrUnreadable) {
		t.Errorf("%s: hot part: got error %v, want ErrUnreadable", name, err)
	}
}

func TestEveryBitOfARecordIsAuthenticated(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id, item := sealFull(t, site, secret)
	whole := item.Value
	endOfHot := len(whole) - gcmOverhead - len(fullParts().cold)
	for i := range whole {
		for bit := range 8 {
			item.Value = bytes.Clone(whole)
			item.Value[i] ^= 1 << bit
			wantUnreadable(t, "flipped bit", site, secret, id, item, i < endOfHot)
		}
	}
	for n := range whole {
		item.Value = whole[:n:n]
		wantUnreadable(t, "truncated", site, secret, id, item, n < endOfHot)
	}
	for _, more := range [][]byte{{0}, bytes.Repeat([]byte{'x'}, 40), make([]byte, 10<<20)} {
		item.Value = append(bytes.Clone(whole), more...)
		wantUnreadable(t, "lengthened", site, secret, id, item, false)
	}
}

// TestMovedRecordDoesNotOpen under another session, site, key or version.
func TestMovedRecordDoesNotOpen(t *testing.T) {
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
		{"another secret under the same ID", site, testSecret(2), id, item},
		{"another session's ID", site, secret, site.Ref(testSecret(2)).ID, item},
		{"another session's ID and secret", site, testSecret(2), site.Ref(testSecret(2)).ID, item},
		{"another issuer", NewSite(ring, "https://other.example.com", "client", "cookie"), secret, id, item},
		{"another client", NewSite(ring, "https://as.example.com", "other", "cookie"), secret, id, item},
		{"another cookie", NewSite(ring, "https://as.example.com", "client", "other"), secret, id, item},
		{"names with equal concatenation", NewSite(ring, "https://as.example.comclient", "", "cookie"), secret, id, item},
		{"another key", testSite(t, b), secret, id, item},
		{"another version in the store", site, secret, id, older},
		{"another version in the head", site, secret, id, renumbered},
		{"parts swapped", site, secret, id, swapped},
		{"nothing", site, secret, id, session.Item{Version: 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantUnreadable(t, tt.name, tt.site, tt.secret, tt.id, tt.item, true)
		})
	}
	wantUnreadable(t, "parts of two versions", site, secret, id, mixed, false)
}

// TestKeyCommitmentIsChecked forges records in which only the commitment is wrong. GCM
// alone would accept them.
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
		t.Fatalf("forged record with the right commitment: got error %v, want nil", err)
	}
	for i := headSize - commitmentSize; i < headSize; i++ {
		forged := bytes.Clone(head)
		forged[i] ^= 1
		wantUnreadable(t, "another commitment", site, secret, id, forge(forged), true)
	}
}

// TestOversizedRecordIsRefused by Seal, because Open would refuse it.
func TestOversizedRecordIsRefused(t *testing.T) {
	site, secret := testSite(t, testKey(1)), testSecret(1)
	id := site.Ref(secret).ID
	rec := fullParts()
	overhead := len(mustSeal(t, site, secret, rec)) - len(rec.cold)
	rec.cold = strings.Repeat("i", maxSealed-overhead-4)
	value := mustSeal(t, site, secret, rec)
	if _, err := openParts(site, Ref{ID: id, Secret: secret}, session.Item{Version: 1, Value: value}); err != nil {
		t.Errorf("opening a record of %d bytes: got error %v, want nil", len(value), err)
	}
	rec.cold += strings.Repeat("i", 16)
	_, err := sealParts(site, Ref{ID: id, Secret: secret}, rec, 1)
	if err == nil {
		t.Fatal("sealing a record over the limit: got nil, want an error")
	}
	if strings.Contains(err.Error(), "iiii") || strings.Contains(err.Error(), "refresh-token") {
		t.Errorf("got error %v, want one without a token", err)
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

// TestStoredBytesRevealNothing: the stored bytes contain neither the plaintext nor any
// eight bytes of the cookie or the key, and two records have no bytes in common.
func TestStoredBytesRevealNothing(t *testing.T) {
	site, secret := testSite(t, testKey(1)), NewSecret()
	id, item := sealFull(t, site, secret)
	stored := append(bytes.Clone(id[:]), item.Value...)
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
		if bytes.Contains(stored, canary) {
			t.Errorf("stored bytes: got %q in them, want none of the secrets", canary)
		}
	}
	_, again := sealFull(t, site, secret)
	if bytes.Equal(item.Value[headSize:], again.Value[headSize:]) {
		t.Error("sealing twice: got equal bytes, want different ones")
	}
	other := NewSecret()
	otherID, otherItem := sealFull(t, site, other)
	if id == otherID {
		t.Error("IDs of two secrets: got equal ones, want different ones")
	}
	// Only magic, version, algorithm, key ID and item version are equal.
	for i := 4 + keyIDSize + 8; i+8 <= len(item.Value); i++ {
		if i != headSize && bytes.Equal(item.Value[i:i+8], otherItem.Value[i:i+8]) {
			t.Errorf("two sessions: got equal bytes at %d, want different ones", i)
		}
	}
}

func TestRecordMovesToTheFirstKey(t *testing.T) {
	a, b := testKey(1), testKey(2)
	secret := testSecret(1)
	onlyA, both, onlyB := testSite(t, a), testSite(t, b, a), testSite(t, b)
	id, item := sealFull(t, onlyA, secret)
	rec, err := openParts(both, Ref{ID: id, Secret: secret}, item)
	if err != nil {
		t.Fatalf("record of the old key: got error %v, want nil", err)
	}
	wantUnreadable(t, "old key dropped", onlyB, secret, id, item, true)
	item.Version++
	if item.Value, err = sealParts(both, Ref{ID: id, Secret: secret}, *rec, item.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := openParts(onlyB, Ref{ID: id, Secret: secret}, item); err != nil {
		t.Errorf("resealed record without the old key: got error %v, want nil", err)
	}
	wantUnreadable(t, "new key unknown", onlyA, secret, id, item, true)
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
