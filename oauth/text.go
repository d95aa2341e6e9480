package oauth

import (
	"strconv"
	"strings"
)

// maxErrorText limits what an error repeats of a text of the server.
const maxErrorText = 200

// minRedacted is the length from which a secret is searched for in texts of
// the server: shorter ones would blank out ordinary words.
const minRedacted = 4

// printable reports whether s is made of printable ASCII, spaces included.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// clean makes a text of the server fit for an error: printable ASCII, bounded,
// and without the secrets that were sent, should the server repeat them.
func clean(s string, secrets ...string) string {
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

// quote is clean in quotes, for values from outside inside a sentence.
func quote(s string) string { return strconv.Quote(clean(s)) }
