package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// A sealed record is
//
//	magic(2) version(1) algorithm(1) key id(8) generation(8) commitment(32)
//	length of the hot part(4) | hot part | cold part
//
// where each part is nonce(12) ciphertext tag(16). The hot part is what every
// request needs; the cold part, with the refresh token, is only opened to
// refresh and to log out.
//
// Both parts are sealed under one key, HKDF-SHA256 of the cookie's secret
// salted with a root key, and authenticate the head, the site, the ID and
// their purpose. GCM does not commit to its key, so a second output of the
// HKDF stands in the head and is compared first: with several root keys no
// record can be made that opens differently under two of them.
const (
	sealMagic   = "\xa5s"
	sealVersion = 1
	sealAES256  = 1

	commitmentSize = 32
	headSize       = 2 + 1 + 1 + keyIDSize + 8 + commitmentSize
	gcmOverhead    = 12 + 16
	// maxSealed bounds what is read back: two parts of at most 256 KiB.
	maxSealed = 1 << 19
)

// sealed is a record whose head has been read and whose key is at hand.
type sealed struct {
	generation uint64
	key        *recordKey
	aad        []byte // without the purpose, which each part appends
	hot, cold  []byte
}

// recordKey is the key of one session under one root key.
type recordKey struct {
	root       keyID
	aead       cipher.AEAD
	commitment []byte
}

// seal encrypts both parts under the key that seals now. That is known already,
// as a rule, if the record was opened.
func (s *Site) seal(secret Secret, id ID, known *recordKey, generation uint64, hot, cold []byte) ([]byte, error) {
	root, err := s.sealing()
	if err != nil {
		return nil, err
	}
	key := known
	if key == nil || key.root != root.id {
		if key, err = s.recordKey(root, secret, id); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, headSize+4+len(hot)+len(cold)+2*gcmOverhead)
	out = append(out, sealMagic...)
	out = append(out, sealVersion, sealAES256)
	out = append(out, root.id[:]...)
	out = binary.BigEndian.AppendUint64(out, generation)
	out = append(out, key.commitment...)
	aad := s.recordAAD(out[:headSize], id)
	out = binary.BigEndian.AppendUint32(out, uint32(len(hot)+gcmOverhead))
	out = key.aead.Seal(out, nil, hot, append(aad, 'h'))
	out = key.aead.Seal(out, nil, cold, append(aad, 'c'))
	if len(out) > maxSealed {
		return nil, fmt.Errorf("the session's tokens take %d bytes, the limit is %d", len(out), maxSealed)
	}
	return out, nil
}

// open reads the head of a sealed record and derives its key. It decrypts
// nothing yet.
func (s *Site) open(secret Secret, id ID, value []byte) (*sealed, error) {
	if len(value) < headSize+4+2*gcmOverhead || len(value) > maxSealed ||
		string(value[:2]) != sealMagic || value[2] != sealVersion || value[3] != sealAES256 {
		return nil, unreadable(PartFormat)
	}
	root, err := s.opening(sealerOf(value))
	if err != nil {
		return nil, err
	}
	key, err := s.recordKey(root, secret, id)
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
	return &sealed{
		generation: binary.BigEndian.Uint64(value[4+keyIDSize:]),
		key:        key,
		aad:        s.recordAAD(value[:headSize], id),
		hot:        body[:hotLen],
		cold:       body[hotLen:],
	}, nil
}

// sealerOf returns the name of the key that a record was sealed with.
func sealerOf(value []byte) keyID { return keyID(value[4 : 4+keyIDSize]) }

func (v *sealed) openHot() ([]byte, error)  { return v.openPart(v.hot, PartHot) }
func (v *sealed) openCold() ([]byte, error) { return v.openPart(v.cold, PartCold) }

// openPart decrypts a part, whose purpose is the first letter of its name.
func (v *sealed) openPart(part []byte, name Part) ([]byte, error) {
	plain, err := v.key.aead.Open(nil, nil, part, append(v.aad, name[0]))
	if err != nil {
		return nil, unreadable(name)
	}
	return plain, nil
}

// recordKey derives the key of one session and the commitment to it.
func (s *Site) recordKey(root *rootKey, secret Secret, id ID) (*recordKey, error) {
	prk, err := hkdf.Extract(sha256.New, secret[:], root.Key[:])
	if err != nil {
		return nil, fmt.Errorf("deriving record key: %w", err)
	}
	info := make([]byte, 0, 128)
	info = appendPart(info, []byte("oauth_session record v1"))
	info = append(info, sealVersion, sealAES256)
	info = appendPart(info, root.id[:])
	info = appendPart(info, s.id[:])
	info = appendPart(info, id[:])
	okm, err := hkdf.Expand(sha256.New, prk, string(info), 32+commitmentSize)
	if err != nil {
		return nil, fmt.Errorf("deriving record key: %w", err)
	}
	aead, err := newAEAD(okm[:32])
	if err != nil {
		return nil, err
	}
	return &recordKey{root: root.id, aead: aead, commitment: okm[32:]}, nil
}

// recordAAD has room for the purpose byte: appending it must not reallocate
// per part, and both parts are opened one after the other.
func (s *Site) recordAAD(head []byte, id ID) []byte {
	aad := make([]byte, 0, headSize+2*(4+sha256.Size)+1)
	aad = append(aad, head...)
	aad = appendPart(aad, s.id[:])
	return appendPart(aad, id[:])
}

// newAEAD returns AES-256-GCM with nonces drawn by the library itself.
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
