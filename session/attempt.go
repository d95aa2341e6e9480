package session

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
)

// saltSize: each login cookie has a key of its own, so the limit of 2^32
// messages under one GCM key is out of reach of any flood of logins.
const saltSize = 32

// SealAttempt seals what the browser carries through one login, for the cookie
// of the given name. Nothing of it is kept on the server, so that anonymous
// traffic costs no storage. The error is an *UnavailableError as long as it is
// not known which key all instances can open.
func (s *Site) SealAttempt(cookieName string, plaintext []byte) (string, error) {
	root, err := s.sealing()
	if err != nil {
		return "", &UnavailableError{RetryAfter: time.Second, Err: fmt.Errorf("sealing login cookie: %w", err)}
	}
	out := make([]byte, 0, 1+keyIDSize+saltSize+len(plaintext)+gcmOverhead)
	out = append(out, sealVersion)
	out = append(out, root.id[:]...)
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:])
	out = append(out, salt[:]...)
	aead, err := s.attemptKey(root, salt[:])
	if err != nil {
		return "", err
	}
	out = aead.Seal(out, nil, plaintext, s.attemptAAD(out, cookieName))
	return cookieEncoding.EncodeToString(out), nil
}

// OpenAttempt reverses SealAttempt. It reports false for everything that this
// site has not sealed for this cookie name with a key still in the ring.
func (s *Site) OpenAttempt(cookieName, value string) ([]byte, bool) {
	// The decoder passes over line ends.
	if strings.ContainsAny(value, "\r\n") {
		return nil, false
	}
	b, err := cookieEncoding.DecodeString(value)
	if err != nil || len(b) < 1+keyIDSize+saltSize+gcmOverhead || b[0] != sealVersion {
		return nil, false
	}
	root, err := s.opening(keyID(b[1 : 1+keyIDSize]))
	if err != nil {
		return nil, false
	}
	head, body := b[:1+keyIDSize+saltSize], b[1+keyIDSize+saltSize:]
	aead, err := s.attemptKey(root, head[1+keyIDSize:])
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, nil, body, s.attemptAAD(head, cookieName))
	return plain, err == nil
}

func (s *Site) attemptKey(root *rootKey, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, root.Key[:], salt, "oauth_session attempt v1"+string(s.id[:]), 32)
	if err != nil {
		return nil, fmt.Errorf("deriving key of login cookie: %w", err)
	}
	return newAEAD(key)
}

func (s *Site) attemptAAD(head []byte, cookieName string) []byte {
	aad := appendPart(nil, head)
	aad = appendPart(aad, s.id[:])
	return appendPart(aad, []byte(cookieName))
}
