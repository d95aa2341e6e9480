package seal

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestCookieDecodesToItsSecret(t *testing.T) {
	form := regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	seen := map[Secret]bool{}
	for range 1000 {
		secret := NewSecret()
		if seen[secret] {
			t.Fatal("NewSecret: got the same secret twice")
		}
		seen[secret] = true
		cookie := secret.Cookie()
		if !form.MatchString(cookie) {
			t.Fatalf("got cookie %q, want 43 characters of base64url", cookie)
		}
		if got, ok := ParseSecret(cookie); !ok || got != secret {
			t.Fatalf("ParseSecret(%q): got another secret or ok %v, want the secret", cookie, ok)
		}
	}
}

func TestParseSecretRefusesOtherEncodings(t *testing.T) {
	good := testSecret(1).Cookie()
	if _, ok := ParseSecret(good); !ok {
		t.Fatal("a valid cookie: got false, want true")
	}
	tests := map[string]string{
		"empty":                  "",
		"short":                  good[:42],
		"long":                   good + "A",
		"padded":                 good + "=",
		"padded within":          good[:42] + "=",
		"newline after":          good + "\n",
		"newline within":         good[:20] + "\n" + good[20:],
		"newline in place":       good[:20] + "\n" + good[21:],
		"return in place":        good[:42] + "\r",
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
				t.Errorf("got secret %x, want false", secret[:])
			}
		})
	}
}

func TestEveryCharacterOfASecretMatters(t *testing.T) {
	secret := testSecret(1)
	good := secret.Cookie()
	for i := range good {
		for c := range 256 {
			altered := []byte(good)
			if altered[i] = byte(c); altered[i] == good[i] {
				continue
			}
			if got, ok := ParseSecret(string(altered)); ok && got == secret {
				t.Errorf("%q at %d: got the same secret, want another one or false", byte(c), i)
			}
		}
	}
}

func TestParseKeyAcceptsOnlyRandomKeys(t *testing.T) {
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
			t.Errorf("%s: got error %v, want the key", name, err)
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
			t.Errorf("%s: got key %x, want an error", name, got[:])
			continue
		}
		for i := 0; i+6 <= len(strings.TrimSpace(bad)); i++ {
			if part := strings.TrimSpace(bad)[i : i+6]; strings.Contains(err.Error(), part) {
				t.Errorf("%s: got error %q, want one without %q of the key", name, err, part)
				break
			}
		}
	}

	// The last character is left out: two of its bits are not part of the key.
	for i := range text[:42] {
		altered := []byte(text)
		if altered[i]++; altered[i] == text[i] {
			continue
		}
		if got, err := ParseKey(string(altered)); err == nil && got == key {
			t.Errorf("%q at %d: got the same key, want another one or an error", altered[i], i)
		}
	}
}

func TestNewKeyIsAcceptedByParseKey(t *testing.T) {
	for range 1000 {
		key := NewKey()
		if got, err := ParseKey(key.Encode()); err != nil || got != key {
			t.Fatalf("ParseKey of a new key: got error %v, want the key", err)
		}
	}
}

func TestNewKeyRingRefusesNoneAndDuplicates(t *testing.T) {
	if _, err := NewKeyRing(); err == nil {
		t.Error("without keys: got nil, want an error")
	}
	for _, keys := range [][]Key{{testKey(1), testKey(1)}, {testKey(1), testKey(2), testKey(1)}} {
		_, err := NewKeyRing(keys...)
		if err == nil {
			t.Error("with a key twice: got nil, want an error")
		} else if strings.Contains(err.Error(), testKey(1).Encode()[:8]) {
			t.Errorf("got error %q, want one without the key", err)
		}
	}
}

// TestNoVerbPrintsASecret covers the verbs that logs use.
func TestNoVerbPrintsASecret(t *testing.T) {
	secret, key := testSecret(1), testKey(1)
	for _, verb := range []string{"%v", "%+v", "%s", "%q", "%x", "%X"} {
		for _, v := range []any{secret, &secret, key, &key, struct{ S Secret }{secret}, []Key{key}} {
			text := strings.ToLower(fmt.Sprintf(verb, v))
			for _, raw := range [][]byte{secret[:4], key[:4]} {
				if strings.Contains(text, fmt.Sprintf("%x", raw)) || strings.Contains(text, strings.Trim(fmt.Sprint(raw), "[]")) {
					t.Errorf("%s of %T: got %s, want a placeholder", verb, v, text)
				}
			}
		}
	}
}

func TestIDDependsOnTheSiteAndNotOnKeys(t *testing.T) {
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
		t.Error("ID with another key of the server: got another ID, want the same")
	}
	for _, parts := range [][3]string{
		{"issue", "rclient", "cookie"}, {"issuerclient", "", "cookie"}, {"issuer", "client", "cookie2"}, {"client", "issuer", "cookie"}, {},
	} {
		if NewSite(a, parts[0], parts[1], parts[2]).Ref(secret).ID == id {
			t.Errorf("ID at site %q: got the same ID, want another one", parts)
		}
	}
	if text := id.String(); len(text) != 12 {
		t.Errorf("String of an ID: got %q, want 12 characters", text)
	}
}
