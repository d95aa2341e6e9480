package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const attemptCookie = "__Host-oauth_login_abc"

func sealAttempt(t testing.TB, site *Site, plain string) string {
	t.Helper()
	value, err := site.SealForBrowser(attemptCookie, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestAttemptOpensAsSealed(t *testing.T) {
	site := testSite(t, testKey(1))
	for _, plain := range []string{"", "x", `{"state":"abc","verifier":"def"}`, strings.Repeat("p", 3000)} {
		value := sealAttempt(t, site, plain)
		got, ok := site.OpenFromBrowser(attemptCookie, value)
		if !ok || string(got) != plain {
			t.Errorf("%d bytes sealed, opened %q, %v", len(plain), got, ok)
		}
		if plain != "" && strings.Contains(value, plain) && len(plain) > 1 {
			t.Error("the cookie shows its content")
		}
		if again := sealAttempt(t, site, plain); again == value {
			t.Error("sealing twice gives one cookie")
		}
	}
}

func TestForeignAttemptsDoNotOpen(t *testing.T) {
	a, b := testKey(1), testKey(2)
	site := testSite(t, a)
	ring, err := NewKeyRing(a)
	if err != nil {
		t.Fatal(err)
	}
	value := sealAttempt(t, site, "content")
	secret := testSecret(1)
	_, item := sealFull(t, site, secret)
	tests := []struct {
		name, cookie, value string
		site                *Site
	}{
		{"another name", attemptCookie + "d", value, site},
		{"no name", "", value, site},
		{"another issuer", attemptCookie, value, NewSite(ring, "https://other.example.com", "client", "cookie")},
		{"another client", attemptCookie, value, NewSite(ring, "https://as.example.com", "other", "cookie")},
		{"another session cookie", attemptCookie, value, NewSite(ring, "https://as.example.com", "client", "other")},
		{"another key", attemptCookie, value, testSite(t, b)},
		{"nothing", attemptCookie, "", site},
		{"padding", attemptCookie, value + "=", site},
		{"quotes", attemptCookie, `"` + value + `"`, site},
		{"twice", attemptCookie, value + value, site},
		{"a session's cookie", attemptCookie, secret.Cookie(), site},
		{"a sealed record", attemptCookie, cookieEncoding.EncodeToString(item.Value), site},
		{"60 KiB", attemptCookie, strings.Repeat("A", 60<<10), site},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := tt.site.OpenFromBrowser(tt.cookie, tt.value); ok || got != nil {
				t.Errorf("it opens: %q", got)
			}
		})
	}
}

func TestEveryCharacterOfAnAttemptCounts(t *testing.T) {
	site := testSite(t, testKey(1))
	value := sealAttempt(t, site, "content")
	for i := range value {
		for _, c := range []byte("AQgw_-9~ ") {
			if value[i] == c {
				continue
			}
			altered := []byte(value)
			altered[i] = c
			if _, ok := site.OpenFromBrowser(attemptCookie, string(altered)); ok {
				t.Errorf("it opens with %q at %d", c, i)
			}
		}
		if _, ok := site.OpenFromBrowser(attemptCookie, value[:i]); ok {
			t.Errorf("%d of %d characters open", i, len(value))
		}
	}
}

// TestAttemptSurvivesKeyRotation: a login that began before a change of keys
// ends well after it.
func TestAttemptSurvivesKeyRotation(t *testing.T) {
	a, b := testKey(1), testKey(2)
	value := sealAttempt(t, testSite(t, a), "content")
	if _, ok := testSite(t, b, a).OpenFromBrowser(attemptCookie, value); !ok {
		t.Error("an attempt of the old key does not open")
	}
	renewed := sealAttempt(t, testSite(t, b, a), "content")
	if _, ok := testSite(t, b).OpenFromBrowser(attemptCookie, renewed); !ok {
		t.Error("a new attempt is not sealed under the first key")
	}
}

const goldenAttemptCookie = "cookie-name"

func goldenAttempt(t testing.TB) string {
	t.Helper()
	value, err := os.ReadFile(filepath.Join("testdata", "attempt_v1.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(value))
}

// TestGoldenAttempt opens what the first release has sealed.
func TestGoldenAttempt(t *testing.T) {
	got, ok := testSite(t, testKey(1)).OpenFromBrowser(goldenAttemptCookie, goldenAttempt(t))
	if !ok || string(got) != "state" {
		t.Errorf("opened %q, %v", got, ok)
	}
}
