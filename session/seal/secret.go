package seal

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
)

const (
	// secretSize is the length of a Secret in bytes.
	secretSize = 32
	// cookieSize is the length of its base64url form.
	cookieSize = (secretSize*8 + 5) / 6
)

// cookieEncoding is strict: each secret has exactly one encoding, so an altered
// cookie never opens the same session.
var cookieEncoding = base64.RawURLEncoding.Strict()

// Secret is the value of the session cookie: 256 random bits, new at each login.
// Without it, neither the store nor the server's keys open a session.
type Secret [secretSize]byte

// NewSecret draws a secret from crypto/rand.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails: crypto/rand.Read ends the program instead
	return s
}

// ParseSecret decodes a cookie value. It returns false for every value that
// Secret.Cookie cannot have produced.
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

// Format keeps secrets out of logs: every verb prints a placeholder.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }
