package seal

import (
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestTagDependsOnKeySiteKindAndValue, so that tags can be neither
// computed nor linked without the key.
func TestTagDependsOnKeySiteKindAndValue(t *testing.T) {
	ring, err := NewKeyRing(testKey(1), testKey(2))
	if err != nil {
		t.Fatal(err)
	}
	site := NewSite(ring, "https://as.example.com", "client", "cookie")
	other := NewSite(ring, "https://as.example.com", "client", "other")
	seen := map[session.Tag]string{}
	for name, tag := range map[string]session.Tag{
		"tag":           site.tag(&ring.list[0], tagSID, "value"),
		"other key":     site.tag(&ring.list[1], tagSID, "value"),
		"other site":    other.tag(&ring.list[0], tagSID, "value"),
		"other kind":    site.tag(&ring.list[0], tagSubject, "value"),
		"no sid":        site.tag(&ring.list[0], tagSubjectAlone, "value"),
		"other value":   site.tag(&ring.list[0], tagSID, "values"),
		"moved a byte":  site.tag(&ring.list[0], tagSID+"v", "alue"),
		"without a key": session.Tag(Digest(tagSID, site.id[:], []byte("value"))),
	} {
		if seen[tag] != "" {
			t.Errorf("%s: got the tag of %s, want another one", name, seen[tag])
		}
		seen[tag] = name
	}
	if again := site.tag(&ring.list[0], tagSID, "value"); seen[again] != "tag" {
		t.Error("same key, site, kind and value: got another tag, want the same")
	}
}
