package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	keySize   = 32
	keyIDSize = 8
)

// Key is one of the server's root keys: 32 random bytes.
type Key [keySize]byte

// Format keeps keys out of logs: every verb prints a placeholder.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[key]") }

// Encode returns the form ParseKey reads: base64url without padding.
func (k Key) Encode() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// NewKey draws a key from crypto/rand.
func NewKey() Key { return Key(NewSecret()) }

// ParseKey reads a key of 32 bytes in base64url, with or without padding.
// Surrounding white space is ignored, as files end in a newline. It
// never pads, stretches or hashes a key into shape, and refuses one that was
// obviously not drawn at random. Errors do not contain the key.
func ParseKey(text string) (Key, error) {
	var k Key
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(text), "="))
	if err != nil {
		return k, errors.New("a key is 32 bytes in base64url (43 characters of A-Z a-z 0-9 - _), and this is not base64url")
	}
	if len(b) != keySize {
		return k, fmt.Errorf("a key is 32 bytes in base64url, and this one has %d bytes", len(b))
	}
	copy(k[:], b)
	seen := make(map[byte]bool, keySize)
	for _, c := range k {
		seen[c] = true
	}
	// 32 random bytes with fewer than 16 different values: about 1 in 10^18.
	if len(seen) < 16 {
		return k, errors.New("this key is not random: too many of its bytes are alike")
	}
	return k, nil
}

// ID returns the key's name for logs, 16 hexadecimal digits. It is a hash, and no
// secret.
func (k Key) ID() string { return k.id().String() }

// KeyID is the name of a root key in the head of every value it sealed. It is a
// hash, and no secret.
type KeyID [keyIDSize]byte

// String returns the form for logs, 16 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

func (k Key) id() KeyID {
	h := sha256.New()
	h.Write([]byte("oauth_session key id v1"))
	h.Write(k[:])
	return KeyID(h.Sum(nil)[:keyIDSize])
}

// KeyRing holds the server's root keys. The first key seals, and all of them open.
// A key is therefore replaced without ending a session: put the new key first, and
// drop the old one when max_lifetime has passed. A ring is immutable: Site.SetKeys
// takes another one.
//
// With a shared store, the key that seals is the first that all instances have
// (see Share).
type KeyRing struct {
	list []rootKey
	byID map[KeyID]*rootKey
}

// Format keeps keys out of logs: every verb prints a placeholder.
func (*KeyRing) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[key ring]") }

// rootKey is a key with the values derived from it: its ID, and the keys of tags and
// labels. They are derived once and not for each record.
type rootKey struct {
	Key
	id           KeyID
	tags, labels Key
}

func newRootKey(k Key) (rootKey, error) {
	tags, err := hkdf.Key(sha256.New, k[:], nil, "oauth_session tags v1", keySize)
	if err != nil {
		return rootKey{}, fmt.Errorf("deriving the key of tags: %w", err)
	}
	labels, err := hkdf.Key(sha256.New, k[:], nil, "oauth_session labels v1", keySize)
	if err != nil {
		return rootKey{}, fmt.Errorf("deriving the key of labels: %w", err)
	}
	return rootKey{Key: k, id: k.id(), tags: Key(tags), labels: Key(labels)}, nil
}

// maxKeys limits a ring, so that one announcement can contain all its keys.
const maxKeys = 32

// NewKeyRing returns a ring of 1 to 32 keys. It refuses a duplicate key.
func NewKeyRing(keys ...Key) (*KeyRing, error) {
	if len(keys) == 0 {
		return nil, errors.New("no key given")
	}
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("%d keys given, the limit is %d", len(keys), maxKeys)
	}
	r := &KeyRing{list: make([]rootKey, len(keys)), byID: make(map[KeyID]*rootKey, len(keys))}
	for i, k := range keys {
		root, err := newRootKey(k)
		if err != nil {
			return nil, err
		}
		r.list[i] = root
		if r.byID[r.list[i].id] != nil {
			return nil, errors.New("the same key is given twice")
		}
		r.byID[r.list[i].id] = &r.list[i]
	}
	return r, nil
}

// IDs returns the IDs of the keys, in the order of the ring.
func (r *KeyRing) IDs() []string {
	ids := make([]string, len(r.list))
	for i := range r.list {
		ids[i] = r.list[i].id.String()
	}
	return ids
}
