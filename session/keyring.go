package session

import (
	"crypto/sha256"
	"encoding/base64"
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

// Format keeps keys out of logs, whatever the verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[key]") }

// Encode returns the form ParseKey reads: base64url without padding.
func (k Key) Encode() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// NewKey draws a key from crypto/rand.
func NewKey() Key { return Key(NewSecret()) }

// ParseKey reads a key of 32 bytes in base64url, with or without padding.
// Surrounding white space is ignored, as files end in a newline. A key is
// never padded, stretched or hashed into shape, and one that was obviously not
// drawn at random is refused. Errors do not contain the key.
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

// keyID names a root key in the head of what it sealed.
type keyID [keyIDSize]byte

func (k Key) id() keyID {
	h := sha256.New()
	h.Write([]byte("oauth_session key id v1"))
	h.Write(k[:])
	return keyID(h.Sum(nil)[:keyIDSize])
}

// KeyRing holds the server's root keys. The first seals, all of them open, so
// that a key is replaced without logging anybody out: put the new key first,
// and drop the old one when max_lifetime has passed.
type KeyRing struct {
	first rootKey
	keys  map[keyID]rootKey
}

// Format keeps keys out of logs, whatever the verb.
func (*KeyRing) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[key ring]") }

// rootKey is a key and its name, which would otherwise be hashed anew for
// every record.
type rootKey struct {
	Key
	id keyID
}

// NewKeyRing makes a ring of one key or more. It refuses an empty ring and a
// key that occurs twice.
func NewKeyRing(keys ...Key) (*KeyRing, error) {
	if len(keys) == 0 {
		return nil, errors.New("no key given")
	}
	r := &KeyRing{keys: make(map[keyID]rootKey, len(keys))}
	for _, k := range keys {
		root := rootKey{k, k.id()}
		if _, dup := r.keys[root.id]; dup {
			return nil, errors.New("the same key is given twice")
		}
		r.keys[root.id] = root
	}
	r.first = r.keys[keys[0].id()]
	return r, nil
}
