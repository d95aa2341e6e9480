package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// A sealed record is
//
//	magic(2) version(1) algorithm(1) key id(8) item version(8) commitment(32)
//	length of the hot part(4) | hot part | cold part
//
// where each part is nonce(12) ciphertext tag(16). Every request opens the hot
// part. Only a refresh and a logout open the cold part, which holds the refresh
// token.
//
// Both parts are sealed under one key: HKDF-SHA256 of the cookie's secret, salted
// with a root key. Both authenticate the head, the site, the ID and their purpose.
// GCM does not commit to its key. Therefore a second output of the HKDF stands in
// the head and is compared first: with several root keys, no record can be made
// that opens differently under two of them.
const (
	sealMagic   = "\xa5s"
	sealVersion = 1
	sealAES256  = 1

	commitmentSize = 32
	headSize       = 2 + 1 + 1 + keyIDSize + 8 + commitmentSize
	gcmOverhead    = 12 + 16
	// maxSealed bounds a record in bytes: two parts of at most 256 KiB.
	maxSealed = 1 << 19
)

// Sealed is a record with a verified head. Its parts are not decrypted yet.
type Sealed struct {
	// Key opens the record. Site.Seal takes it to seal the next version without
	// deriving the key again.
	Key *RecordKey

	aad       []byte // without the purpose, which each part appends
	hot, cold []byte
}

// RecordKey is the key of one session under one root key.
type RecordKey struct {
	root       KeyID
	aead       cipher.AEAD
	commitment []byte
}

// Seal encrypts both parts of a record as the given version of its item. It uses
// the key that seals now; known saves the derivation if it is that key, and may be
// nil. The error is ErrNotAgreed as long as the site does not know which key all
// instances can open with.
func (s *Site) Seal(ref Ref, known *RecordKey, version uint64, hot, cold []byte) ([]byte, error) {
	root, err := s.sealing()
	if err != nil {
		return nil, err
	}
	key := known
	if key == nil || key.root != root.id {
		if key, err = s.recordKey(root, ref); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, headSize+4+len(hot)+len(cold)+2*gcmOverhead)
	out = append(out, sealMagic...)
	out = append(out, sealVersion, sealAES256)
	out = append(out, root.id[:]...)
	out = binary.BigEndian.AppendUint64(out, version)
	out = append(out, key.commitment...)
	aad := s.recordAAD(out[:headSize], ref.ID)
	out = binary.BigEndian.AppendUint32(out, uint32(len(hot)+gcmOverhead))
	out = key.aead.Seal(out, nil, hot, append(aad, 'h'))
	out = key.aead.Seal(out, nil, cold, append(aad, 'c'))
	if len(out) > maxSealed {
		return nil, fmt.Errorf("the session's tokens take %d bytes, the limit is %d", len(out), maxSealed)
	}
	return out, nil
}

// Open verifies the head of an item's value and derives the key. It decrypts
// nothing. The version in the head must be the item's, so an old value under a new
// version does not open. The error is an ErrUnreadable, or another one if an instance
// other than this one may have the key.
func (s *Site) Open(ref Ref, item session.Item) (*Sealed, error) {
	value := item.Value
	if len(value) < headSize+4+2*gcmOverhead || len(value) > maxSealed ||
		string(value[:2]) != sealMagic || value[2] != sealVersion || value[3] != sealAES256 {
		return nil, unreadable(PartFormat)
	}
	root, err := s.opening(KeyIDOf(value))
	if err != nil {
		return nil, err
	}
	key, err := s.recordKey(root, ref)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(key.commitment, value[headSize-commitmentSize:headSize]) != 1 {
		return nil, unreadable(PartCommitment)
	}
	hotLen := int64(binary.BigEndian.Uint32(value[headSize:]))
	body := value[headSize+4:]
	if hotLen > int64(len(body)) {
		return nil, unreadable(PartFormat)
	}
	if binary.BigEndian.Uint64(value[4+keyIDSize:]) != item.Version {
		return nil, unreadable(PartVersion)
	}
	return &Sealed{Key: key, aad: s.recordAAD(value[:headSize], ref.ID), hot: body[:hotLen], cold: body[hotLen:]}, nil
}

// KeyIDOf returns the ID of the key in the head of a record that Open accepts.
func KeyIDOf(value []byte) KeyID { return KeyID(value[4 : 4+keyIDSize]) }

// Hot decrypts the hot part. The result is new memory.
func (v *Sealed) Hot() ([]byte, error) { return v.open(v.hot, PartHot) }

// Cold decrypts the cold part. The result is new memory.
func (v *Sealed) Cold() ([]byte, error) { return v.open(v.cold, PartCold) }

// open decrypts a part. Its purpose is the first letter of its name.
func (v *Sealed) open(part []byte, name Part) ([]byte, error) {
	plain, err := v.Key.aead.Open(nil, nil, part, append(v.aad, name[0]))
	if err != nil {
		return nil, unreadable(name)
	}
	return plain, nil
}

// recordKey derives the key of one session and the commitment to it.
func (s *Site) recordKey(root *rootKey, ref Ref) (*RecordKey, error) {
	prk, err := hkdf.Extract(sha256.New, ref.Secret[:], root.Key[:])
	if err != nil {
		return nil, fmt.Errorf("deriving record key: %w", err)
	}
	info := make([]byte, 0, 128)
	info = appendPart(info, []byte("oauth_session record v1"))
	info = append(info, sealVersion, sealAES256)
	info = appendPart(info, root.id[:])
	info = appendPart(info, s.id[:])
	info = appendPart(info, ref.ID[:])
	okm, err := hkdf.Expand(sha256.New, prk, string(info), 32+commitmentSize)
	if err != nil {
		return nil, fmt.Errorf("deriving record key: %w", err)
	}
	aead, err := newAEAD(okm[:32])
	if err != nil {
		return nil, err
	}
	return &RecordKey{root: root.id, aead: aead, commitment: okm[32:]}, nil
}

// recordAAD returns a slice with room for the purpose byte, so that appending it
// does not allocate once per part. The parts are sealed and opened one after the
// other.
func (s *Site) recordAAD(head []byte, id session.ID) []byte {
	aad := make([]byte, 0, headSize+2*(4+sha256.Size)+1)
	aad = append(aad, head...)
	aad = appendPart(aad, s.id[:])
	return appendPart(aad, id[:])
}

// newAEAD returns AES-256-GCM. The library draws the nonces.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("setting up AES: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("setting up GCM: %w", err)
	}
	return aead, nil
}
