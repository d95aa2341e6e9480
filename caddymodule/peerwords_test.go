package caddymodule

import (
	"regexp"
	"strings"
	"testing"
)

// TestPeersWordsGetAHint: each word is refused with file, line and what to write instead.
// The hint begins with an option that exists, or says why none is needed.
func TestPeersWordsGetAHint(t *testing.T) {
	w := newWorld(t)
	_ = w
	for word, hint := range peerWords {
		if _, exists := options[word]; exists {
			t.Errorf("%s is an option", word)
		}
		_, err := adapt("example.com {\n\toauth_session {\n\t\t" + word + " x\n\t}\n}\n")
		if err == nil || !strings.Contains(err.Error(), "Caddyfile:3") || !strings.Contains(err.Error(), hint) {
			t.Errorf("%s: got error %v, want file, line and %q", word, err, hint)
		}
		first := regexp.MustCompile(`^[a-z_]+`).FindString(hint)
		if _, exists := options[first]; !exists && first != "leave" && first != "reverse_proxy" && first != "a" {
			t.Errorf("%s: the hint names %s, which is no option", word, first)
		}
	}
}

// TestPlaceholderWithoutNamespaceGetsAHint: {CLIENT_SECRET} looks like a variable of the
// environment.
func TestPlaceholderWithoutNamespaceGetsAHint(t *testing.T) {
	w := newWorld(t)
	err := w.tryLoad(strings.Replace(site("", ""), "{env.SECRET}", "{CLIENT_SECRET}", 1))
	if err == nil || !strings.Contains(err.Error(), "client_secret") || !strings.Contains(err.Error(), "{env.CLIENT_SECRET}") {
		t.Errorf("got error %v, want one with {env.CLIENT_SECRET}", err)
	}
}
