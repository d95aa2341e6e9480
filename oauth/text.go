package oauth

import (
	"strconv"
	"strings"
)

// maxErrorText limits the characters that an error repeats of a text of the
// server.
const maxErrorText = 200

// minRedacted is the length of the shortest secret that sanitize redacts. Shorter
// secrets would redact ordinary words.
const minRedacted = 4

// isPrintable reports whether s consists of printable ASCII, spaces included.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// sanitize makes a text of the server safe for an error: it removes characters
// that are not printable ASCII, redacts the given secrets and cuts the text to
// maxErrorText.
func sanitize(s string, secrets ...string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
	for _, secret := range secrets {
		if len(secret) >= minRedacted {
			s = strings.ReplaceAll(s, secret, "[redacted]")
		}
	}
	if len(s) > maxErrorText {
		s = s[:maxErrorText] + "..."
	}
	return s
}

// quote sanitizes a value of the server and puts it in quotes.
func quote(s string) string { return strconv.Quote(sanitize(s)) }
