package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
)

const (
	// secretSize is the length of the cookie's secret in bytes.
	secretSize = 32
	// cookieSize is the length of its spelling.
	cookieSize = (secretSize*8 + 5) / 6
)

// cookieEncoding is strict: each secret has exactly one spelling, so no
// altered cookie opens the same session.
var cookieEncoding = base64.RawURLEncoding.Strict()

// Secret is what the browser's cookie holds: 256 random bits, new at each
// login. Without it neither the store nor the server's keys open a session.
type Secret [secretSize]byte

// NewSecret draws a secret from crypto/rand.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails: crypto/rand.Read ends the program instead
	return s
}

// ParseSecret reads a cookie value. It reports false for everything that
// Secret.Cookie cannot have written.
func ParseSecret(cookie string) (Secret, bool) {
	var s Secret
	var text [cookieSize]byte // a conversion would allocate, in every request
	if len(cookie) != cookieSize {
		return s, false
	}
	copy(text[:], cookie)
	n, err := cookieEncoding.Decode(s[:], text[:])
	return s, err == nil && n == secretSize
}

// Cookie returns the cookie value, 43 characters of base64url.
func (s Secret) Cookie() string { return cookieEncoding.EncodeToString(s[:]) }

// Format keeps secrets out of logs, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// ID names a session in the store: a hash of the secret and the site, so that
// a copy of the store holds no usable cookie.
type ID [sha256.Size]byte

// String is a short form for logs; it leads to no record and no cookie.
func (id ID) String() string { return hex.EncodeToString(id[:6]) }
