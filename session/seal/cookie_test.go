package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const cookieName = "__Host-oauth_login_abc"

func sealCookie(t testing.TB, site *Site, plain string) string {
	t.Helper()
	value, err := site.SealForBrowser(cookieName, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestCookieOpensAsSealed(t *testing.T) {
	site := testSite(t, testKey(1))
	for _, plain := range []string{"", "x", `{"state":"abc","verifier":"def"}`, strings.Repeat("p", 3000)} {
		value := sealCookie(t, site, plain)
		got, ok := site.OpenFromBrowser(cookieName, value)
		if !ok || string(got) != plain {
			t.Errorf("OpenFromBrowser: got %q, %v, want the %d sealed bytes", got, ok, len(plain))
		}
		if plain != "" && strings.Contains(value, plain) && len(plain) > 1 {
			t.Errorf("got cookie %q, want one without the plaintext", value)
		}
		if again := sealCookie(t, site, plain); again == value {
			t.Error("sealing twice: got equal cookies, want different ones")
		}
	}
}

func TestForeignCookieDoesNotOpen(t *testing.T) {
	a, b := testKey(1), testKey(2)
	site := testSite(t, a)
	ring, err := NewKeyRing(a)
	if err != nil {
		t.Fatal(err)
	}
	value := sealCookie(t, site, "content")
	secret := testSecret(1)
	_, item := sealFull(t, site, secret)
	tests := []struct {
		name, cookie, value string
		site                *Site
	}{
		{"another name", cookieName + "d", value, site},
		{"no name", "", value, site},
		{"another issuer", cookieName, value, NewSite(ring, "https://other.example.com", "client", "cookie")},
		{"another client", cookieName, value, NewSite(ring, "https://as.example.com", "other", "cookie")},
		{"another session cookie", cookieName, value, NewSite(ring, "https://as.example.com", "client", "other")},
		{"another key", cookieName, value, testSite(t, b)},
		{"nothing", cookieName, "", site},
		{"padding", cookieName, value + "=", site},
		{"quotes", cookieName, `"` + value + `"`, site},
		{"twice", cookieName, value + value, site},
		{"a session's cookie", cookieName, secret.Cookie(), site},
		{"a sealed record", cookieName, cookieEncoding.EncodeToString(item.Value), site},
		{"60 KiB", cookieName, strings.Repeat("A", 60<<10), site},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := tt.site.OpenFromBrowser(tt.cookie, tt.value); ok || got != nil {
				t.Errorf("OpenFromBrowser: got %q, want nothing", got)
			}
		})
	}
}

func TestEveryCharacterOfACookieIsAuthenticated(t *testing.T) {
	site := testSite(t, testKey(1))
	value := sealCookie(t, site, "content")
	for i := range value {
		for _, c := range []byte("AQgw_-9~ ") {
			if value[i] == c {
				continue
			}
			altered := []byte(value)
			altered[i] = c
			if _, ok := site.OpenFromBrowser(cookieName, string(altered)); ok {
				t.Errorf("cookie with %q at %d: got success, want failure", c, i)
			}
		}
		if _, ok := site.OpenFromBrowser(cookieName, value[:i]); ok {
			t.Errorf("first %d of %d characters: got success, want failure", i, len(value))
		}
	}
}

// TestCookieSurvivesKeyRotation: a login that began before a change of keys succeeds
// after it.
func TestCookieSurvivesKeyRotation(t *testing.T) {
	a, b := testKey(1), testKey(2)
	value := sealCookie(t, testSite(t, a), "content")
	if _, ok := testSite(t, b, a).OpenFromBrowser(cookieName, value); !ok {
		t.Error("cookie of the old key: got failure, want success")
	}
	renewed := sealCookie(t, testSite(t, b, a), "content")
	if _, ok := testSite(t, b).OpenFromBrowser(cookieName, renewed); !ok {
		t.Error("new cookie without the old key: got failure, want it sealed with the first key")
	}
}

const goldenCookieName = "cookie-name"

func goldenCookie(t testing.TB) string {
	t.Helper()
	value, err := os.ReadFile(filepath.Join("testdata", "attempt_v1.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(value))
}

// TestGoldenCookieOpens: the first release has sealed it.
func TestGoldenCookieOpens(t *testing.T) {
	got, ok := testSite(t, testKey(1)).OpenFromBrowser(goldenCookieName, goldenCookie(t))
	if !ok || string(got) != "state" {
		t.Errorf("OpenFromBrowser: got %q, %v, want \"state\"", got, ok)
	}
}
