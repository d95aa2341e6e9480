package seal

import "testing"

// testKey returns a fixed key.
func testKey(n byte) (k Key) {
	for i := range k {
		k[i] = byte(i)*7 + n*13
	}
	return k
}

// testSecret returns a fixed secret.
func testSecret(n byte) (s Secret) {
	for i := range s {
		s[i] = byte(i)*11 + n*17
	}
	return s
}

func mustRing(t testing.TB, keys ...Key) *KeyRing {
	t.Helper()
	ring, err := NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func testSite(t testing.TB, keys ...Key) *Site {
	t.Helper()
	return NewSite(mustRing(t, keys...), "https://as.example.com", "client", "cookie")
}
