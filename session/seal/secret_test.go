package seal

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestSecretReadsItsOwnCookie(t *testing.T) {
	form := regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	seen := map[Secret]bool{}
	for range 1000 {
		secret := NewSecret()
		if seen[secret] {
			t.Fatal("the same secret was drawn twice")
		}
		seen[secret] = true
		cookie := secret.Cookie()
		if !form.MatchString(cookie) {
			t.Fatalf("cookie %q", cookie)
		}
		if got, ok := ParseSecret(cookie); !ok || got != secret {
			t.Fatalf("ParseSecret(%q) = %v, %v", cookie, got, ok)
		}
	}
}

func TestParseSecretRefuses(t *testing.T) {
	good := testSecret(1).Cookie()
	if _, ok := ParseSecret(good); !ok {
		t.Fatal("a good cookie is refused")
	}
	tests := map[string]string{
		"empty":                  "",
		"short":                  good[:42],
		"long":                   good + "A",
		"padded":                 good + "=",
		"padded within":          good[:42] + "=",
		"newline after":          good + "\n",
		"newline within":         good[:20] + "\n" + good[20:],
		"newline for one":        good[:20] + "\n" + good[21:],
		"return for one":         good[:42] + "\r",
		"space":                  " " + good[:42],
		"quoted":                 `"` + good + `"`,
		"standard alphabet":      strings.Repeat("+/", 21) + "A",
		"percent":                strings.Repeat("%", 43),
		"not ASCII":              strings.Repeat("é", 21) + "A",
		"zero bytes":             strings.Repeat("\x00", 43),
		"bits beyond the secret": strings.Repeat("A", 42) + "B",
		"60 KiB":                 strings.Repeat("A", 60<<10),
	}
	for name, cookie := range tests {
		t.Run(name, func(t *testing.T) {
			if secret, ok := ParseSecret(cookie); ok {
				t.Errorf("it is read as %x", secret[:])
			}
		})
	}
}

func TestEveryCharacterOfASecretCounts(t *testing.T) {
	secret := testSecret(1)
	good := secret.Cookie()
	for i := range good {
		for c := range 256 {
			altered := []byte(good)
			if altered[i] = byte(c); altered[i] == good[i] {
				continue
			}
			if got, ok := ParseSecret(string(altered)); ok && got == secret {
				t.Errorf("%q at %d gives the same secret", byte(c), i)
			}
		}
	}
}

func TestParseKey(t *testing.T) {
	key := testKey(1)
	text := key.Encode()
	for name, good := range map[string]string{
		"plain":           text,
		"padded":          text + "=",
		"a file's ending": text + "\r\n",
		"padded file":     text + "=\n",
		"white space":     " \t" + text + "  ",
	} {
		if got, err := ParseKey(good); err != nil || got != key {
			t.Errorf("%s: %v", name, err)
		}
	}

	uniform := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15}, 2)
	for name, bad := range map[string]string{
		"empty":            "",
		"white space":      " \n",
		"a word":           "changeme",
		"a passphrase":     "correct-horse-battery-staple",
		"31 bytes":         base64.RawURLEncoding.EncodeToString(key[:31]),
		"33 bytes":         base64.RawURLEncoding.EncodeToString(append(key[:], 1)),
		"two keys":         text + text,
		"two lines":        text + "\n" + text,
		"standard base64":  strings.Repeat("+/aB", 10) + "cdE",
		"hexadecimal":      fmt.Sprintf("%x", key[:]),
		"zeros":            strings.Repeat("A", 43),
		"15 values":        base64.RawURLEncoding.EncodeToString(uniform),
		"unset variable":   "{env.SESSION_KEY}",
		"padded in front":  "=" + text,
		"padded in middle": text[:20] + "=" + text[20:],
	} {
		got, err := ParseKey(bad)
		if err == nil {
			t.Errorf("%s: accepted as %x", name, got[:])
			continue
		}
		for i := 0; i+6 <= len(strings.TrimSpace(bad)); i++ {
			if part := strings.TrimSpace(bad)[i : i+6]; strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error %q holds %q of the key", name, err, part)
				break
			}
		}
	}

	// The last character also holds two bits that are no part of the key.
	for i := range text[:42] {
		altered := []byte(text)
		if altered[i]++; altered[i] == text[i] {
			continue
		}
		if got, err := ParseKey(string(altered)); err == nil && got == key {
			t.Errorf("%q at %d gives the same key", altered[i], i)
		}
	}
}

func TestNewKeyIsAcceptedByParseKey(t *testing.T) {
	for range 1000 {
		key := NewKey()
		if got, err := ParseKey(key.Encode()); err != nil || got != key {
			t.Fatalf("a drawn key is refused: %v", err)
		}
	}
}

func TestNewKeyRing(t *testing.T) {
	if _, err := NewKeyRing(); err == nil {
		t.Error("an empty ring is accepted")
	}
	for _, keys := range [][]Key{{testKey(1), testKey(1)}, {testKey(1), testKey(2), testKey(1)}} {
		_, err := NewKeyRing(keys...)
		if err == nil {
			t.Error("a key twice is accepted")
		} else if strings.Contains(err.Error(), testKey(1).Encode()[:8]) {
			t.Error("the error holds the key")
		}
	}
}

// TestSecretsDoNotPrint: the verbs that end up in logs show no secret.
func TestSecretsDoNotPrint(t *testing.T) {
	secret, key := testSecret(1), testKey(1)
	for _, verb := range []string{"%v", "%+v", "%s", "%q", "%x", "%X"} {
		for _, v := range []any{secret, &secret, key, &key, struct{ S Secret }{secret}, []Key{key}} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, raw := range [][]byte{secret[:4], key[:4]} {
				if strings.Contains(text, fmt.Sprintf("%x", raw)) || strings.Contains(text, strings.Trim(fmt.Sprint(raw), "[]")) {
					t.Errorf("%s of %T prints %s", verb, v, text)
				}
			}
		}
	}
}

func TestIDsTellSitesApart(t *testing.T) {
	a, err := NewKeyRing(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewKeyRing(testKey(2))
	if err != nil {
		t.Fatal(err)
	}
	secret := testSecret(1)
	id := NewSite(a, "issuer", "client", "cookie").Ref(secret).ID
	if NewSite(b, "issuer", "client", "cookie").Ref(secret).ID != id {
		t.Error("the server's key changes where a session is kept")
	}
	for _, parts := range [][3]string{
		{"issue", "rclient", "cookie"}, {"issuerclient", "", "cookie"}, {"issuer", "client", "cookie2"}, {"client", "issuer", "cookie"}, {},
	} {
		if NewSite(a, parts[0], parts[1], parts[2]).Ref(secret).ID == id {
			t.Errorf("site %q shares its sessions", parts)
		}
	}
	if text := id.String(); len(text) != 12 {
		t.Errorf("an ID in a log is %q, want a short form", text)
	}
}
