package seal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

const labelText = "subject-248289761001 jane@example.com"

func mustSealLabel(t testing.TB, site *Site, id session.ID) []byte {
	t.Helper()
	label, err := site.SealLabel(id, []byte(labelText))
	if err != nil {
		t.Fatal(err)
	}
	return label
}

func TestLabelOpensWithoutCookie(t *testing.T) {
	site, id := testSite(t, testKey(1)), session.ID{1}
	got, err := site.OpenLabel(id, mustSealLabel(t, site, id))
	if err != nil || string(got) != labelText {
		t.Errorf("got %q and error %v, want the text that was sealed", got, err)
	}
}

func TestEveryBitOfALabelIsAuthenticated(t *testing.T) {
	site, id := testSite(t, testKey(1)), session.ID{1}
	label := mustSealLabel(t, site, id)
	for i := range 8 * len(label) {
		altered := bytes.Clone(label)
		altered[i/8] ^= 1 << (i % 8)
		if _, err := site.OpenLabel(id, altered); !errors.Is(err, ErrUnreadable) {
			t.Errorf("bit %d: got error %v, want ErrUnreadable", i, err)
		}
	}
	for n := range label {
		if _, err := site.OpenLabel(id, label[:n]); !errors.Is(err, ErrUnreadable) {
			t.Errorf("the first %d bytes: got error %v, want ErrUnreadable", n, err)
		}
	}
}

// TestMovedLabelDoesNotOpen: someone with write access to the store cannot give a session
// the name of another one.
func TestMovedLabelDoesNotOpen(t *testing.T) {
	site, id := testSite(t, testKey(1)), session.ID{1}
	ring := mustRing(t, testKey(1))
	label := mustSealLabel(t, site, id)
	for name, tt := range map[string]struct {
		site *Site
		id   session.ID
	}{
		"other session": {site, session.ID{2}},
		"other issuer":  {NewSite(ring, "https://other.example.com", "client", "cookie"), id},
		"other client":  {NewSite(ring, "https://as.example.com", "other", "cookie"), id},
		"other cookie":  {NewSite(ring, "https://as.example.com", "client", "other"), id},
		"other key":     {testSite(t, testKey(2)), id},
	} {
		if got, err := tt.site.OpenLabel(tt.id, label); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: got %q and error %v, want ErrUnreadable", name, got, err)
		}
	}
}

func TestLabelRevealsNothing(t *testing.T) {
	site, id := testSite(t, testKey(1)), session.ID{1}
	first, second := mustSealLabel(t, site, id), mustSealLabel(t, site, id)
	for _, part := range []string{"subject", "jane", "example"} {
		if bytes.Contains(first, []byte(part)) {
			t.Errorf("got %q in the sealed label", part)
		}
	}
	if bytes.Equal(first, second) {
		t.Error("got the same bytes twice: the store would see which sessions are unchanged")
	}
}

func TestLabelMovesToTheFirstKey(t *testing.T) {
	site, id := testSite(t, testKey(1)), session.ID{1}
	old := mustSealLabel(t, site, id)
	site.SetKeys(mustRing(t, testKey(2), testKey(1)))
	if _, err := site.OpenLabel(id, old); err != nil {
		t.Errorf("label of the former key: got error %v, want nil", err)
	}
	next := mustSealLabel(t, site, id)
	site.SetKeys(mustRing(t, testKey(2)))
	if _, err := site.OpenLabel(id, next); err != nil {
		t.Errorf("label of the new key: got error %v, want nil", err)
	}
	var unreadable *UnreadableError
	if _, err := site.OpenLabel(id, old); !errors.As(err, &unreadable) || unreadable.Part != PartKey {
		t.Errorf("label of the dropped key: got error %v, want an unreadable key", err)
	}
}

func TestOversizedLabelIsRefused(t *testing.T) {
	site := testSite(t, testKey(1))
	most := session.MaxLabel - labelHeadSize - gcmOverhead
	if label, err := site.SealLabel(session.ID{}, make([]byte, most)); err != nil || len(label) != session.MaxLabel {
		t.Errorf("%d bytes: got %d bytes and error %v, want MaxLabel and nil", most, len(label), err)
	}
	if _, err := site.SealLabel(session.ID{}, make([]byte, most+1)); err == nil {
		t.Errorf("%d bytes: got no error", most+1)
	}
}
