package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
)

// saltSize is the length of the random salt in bytes. Each value has its own key,
// so no number of logins comes near the limit of 2^32 messages under one GCM key.
const saltSize = 32

// SealForBrowser encrypts a value that the browser carries through one login, in a
// cookie or in the state parameter. The name is authenticated: a value sealed under
// one name does not open under another. The server keeps no copy, so anonymous
// traffic costs no storage.
//
// The error is ErrNoKeys, or ErrNotAgreed as long as the site does not know which
// key all instances can open with.
func (s *Site) SealForBrowser(name string, plaintext []byte) (string, error) {
	root, err := s.sealing()
	if err != nil {
		return "", fmt.Errorf("sealing login cookie: %w", err)
	}
	out := make([]byte, 0, 1+keyIDSize+saltSize+len(plaintext)+gcmOverhead)
	out = append(out, sealVersion)
	out = append(out, root.id[:]...)
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:])
	out = append(out, salt[:]...)
	aead, err := s.browserKey(root, salt[:])
	if err != nil {
		return "", err
	}
	out = aead.Seal(out, nil, plaintext, s.browserAAD(out, name))
	return cookieEncoding.EncodeToString(out), nil
}

// OpenFromBrowser reverses SealForBrowser. It returns false for every value that
// this site has not sealed under this name with a key that is still in the ring.
func (s *Site) OpenFromBrowser(name, value string) ([]byte, bool) {
	// The base64 decoder ignores line ends.
	if strings.ContainsAny(value, "\r\n") {
		return nil, false
	}
	b, err := cookieEncoding.DecodeString(value)
	if err != nil || len(b) < 1+keyIDSize+saltSize+gcmOverhead || b[0] != sealVersion {
		return nil, false
	}
	root, err := s.opening(KeyID(b[1 : 1+keyIDSize]))
	if err != nil {
		return nil, false
	}
	head, body := b[:1+keyIDSize+saltSize], b[1+keyIDSize+saltSize:]
	aead, err := s.browserKey(root, head[1+keyIDSize:])
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, nil, body, s.browserAAD(head, name))
	return plain, err == nil
}

func (s *Site) browserKey(root *rootKey, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, root.Key[:], salt, "oauth_session attempt v1"+string(s.id[:]), 32)
	if err != nil {
		return nil, fmt.Errorf("deriving key of login cookie: %w", err)
	}
	return newAEAD(key)
}

func (s *Site) browserAAD(head []byte, name string) []byte {
	aad := appendPart(nil, head)
	aad = appendPart(aad, s.id[:])
	return appendPart(aad, []byte(name))
}
