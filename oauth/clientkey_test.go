package oauth

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

var (
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return newRSAKey(2048) })
	key521   = sync.OnceValue(func() *ecdsa.PrivateKey { return newECKey(elliptic.P521()) })
	otherEd  = sync.OnceValue(newEdKey)
	key224   = sync.OnceValue(func() *ecdsa.PrivateKey { return newECKey(elliptic.P224()) })
)

func pemBlock(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(key any) string { return pemBlock("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))) }

func publicPEM(key crypto.Signer) string {
	return pemBlock("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key.Public())))
}

// certificate returns a certificate of a key, as DER.
func certificate(key crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	return must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
}

// privateJWK returns a private key as a JWK, with the given changes.
func privateJWK(key crypto.Signer, change ...any) map[string]any {
	var members map[string]any
	if err := json.Unmarshal(must(json.Marshal(jose.JSONWebKey{Key: key})), &members); err != nil {
		panic(err)
	}
	return edit(members, change...)
}

func asJSON(v any) string { return string(must(json.Marshal(v))) }

func jwkSet(keys ...any) string { return asJSON(map[string]any{"keys": keys}) }

// keyFileOf writes a file that has not changed for a while.
func keyFileOf(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client-key")
	replaceFile(t, path, content)
	return path
}

// replaceFile replaces a file at once. Its new content has not changed for a while.
func replaceFile(t testing.TB, path, content string) {
	t.Helper()
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	settle(t, temp)
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

// settle makes a file look as if it was last written a while ago.
func settle(t testing.TB, path string) {
	t.Helper()
	then := time.Now().Add(-10 * fileSettle)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
}

// publishedKeys parses the public keys of a client.
func publishedKeys(t testing.TB, c *Client) []jose.JSONWebKey {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(c.PublicKeys(), &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if !k.Valid() || !k.IsPublic() || k.Use != "sig" {
			t.Errorf("got a published key %s of use %q, want a public one of use sig", k.KeyID, k.Use)
		}
	}
	return set.Keys
}

func thumbprint(key crypto.Signer) string {
	jwk := jose.JSONWebKey{Key: key.Public()}
	return base64.RawURLEncoding.EncodeToString(must(jwk.Thumbprint(crypto.SHA256)))
}

// TestClientKeyFormsAreRead: each form of a key file gives the same key, and PublicKeys
// publishes it without private members.
func TestClientKeyFormsAreRead(t *testing.T) {
	tests := map[string]struct {
		content string
		want    []string // key IDs
	}{
		"PKCS #8, RSA":           {pkcs8(rsaKey()), []string{thumbprint(rsaKey())}},
		"PKCS #8, EC":            {pkcs8(keyA()), []string{thumbprint(keyA())}},
		"PKCS #8, Ed25519":       {pkcs8(edKey()), []string{thumbprint(edKey())}},
		"PKCS #1":                {pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey())), []string{thumbprint(rsaKey())}},
		"SEC 1 with parameters":  {pemBlock("EC PARAMETERS", []byte{6, 0}) + pemBlock("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key384()))), []string{thumbprint(key384())}},
		"text around the blocks": {"Bag Attributes\n\r\n" + pkcs8(key521()) + "\nend\n", []string{thumbprint(key521())}},
		"certificate behind":     {pkcs8(rsaKey()) + pemBlock("CERTIFICATE", certificate(rsaKey())), []string{thumbprint(rsaKey())}},
		"two keys":               {pkcs8(keyB()) + pkcs8(rsaKey()), []string{thumbprint(keyB()), thumbprint(rsaKey())}},
		"JWK":                    {asJSON(privateJWK(keyA())), []string{thumbprint(keyA())}},
		"JWK with BOM and kid":   {"\xef\xbb\xbf\n" + asJSON(privateJWK(edKey(), "kid", "k/1", "use", "sig", "key_ops", []string{"sign"})), []string{"k/1"}},
		"JWK Set":                {jwkSet(privateJWK(keyA(), "kid", "new"), privateJWK(rsaKey(), "kid", "old", "alg", "PS384")), []string{"new", "old"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := newServer(t, "https://idp.test").client(withKey(keyFileOf(t, tc.content)))
			if got := fmt.Sprint(c.KeyIDs()); got != fmt.Sprint(tc.want) {
				t.Errorf("got key IDs %s, want %s", got, tc.want)
			}
			keys := publishedKeys(t, c)
			if len(keys) != len(tc.want) {
				t.Fatalf("got %d published keys, want %d", len(keys), len(tc.want))
			}
			for i, k := range keys {
				if k.KeyID != tc.want[i] {
					t.Errorf("got published key %d with kid %s, want %s", i, k.KeyID, tc.want[i])
				}
			}
			for _, member := range []string{`"d"`, `"p"`, `"q"`, `"dp"`, `"dq"`, `"qi"`, `"k"`, `"x5c"`} {
				if bytes.Contains(c.PublicKeys(), []byte(member)) {
					t.Errorf("got the member %s in the published keys", member)
				}
			}
		})
	}
}

// FuzzClientKey: any content of a key file is an error or a set of strong keys, and no
// private member is published.
func FuzzClientKey(f *testing.F) {
	for _, seed := range []string{
		pkcs8(keyA()), pkcs8(edKey()) + pemBlock("CERTIFICATE", certificate(edKey())), pemBlock("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key384()))),
		asJSON(privateJWK(keyA(), "kid", "a", "alg", "ES256", "use", "sig")), jwkSet(privateJWK(edKey()), privateJWK(keyB())), publicPEM(keyA()), `{"keys":[{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		keys, err := parseClientKeys(content)
		if err != nil {
			if !isPrintable(err.Error()) || len(err.Error()) > 500 {
				t.Errorf("got error %q, want a short printable one", err)
			}
			return
		}
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal(keys.public, &set); err != nil || len(set.Keys) != len(keys.keys) || len(set.Keys) == 0 {
			t.Fatalf("got public set %s of %d keys, error %v", keys.public, len(keys.keys), err)
		}
		for i, members := range set.Keys {
			for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
				if _, ok := members[private]; ok {
					t.Errorf("got the member %s in the public set", private)
				}
			}
			if err := checkStrength(keys.keys[i].private); err != nil || members["kid"] == "" {
				t.Errorf("got key %v with kid %v", err, members["kid"])
			}
		}
	})
}

// withKey configures private_key_jwt.
func withKey(path string) func(*Config) {
	return func(c *Config) { c.ClientSecret, c.AuthMethod, c.ClientKeyFile = nil, "private_key_jwt", path }
}

// TestUnusableClientKeyIsRefusedAtStart: the error names the option, the file and the
// cause, and contains nothing of the key.
func TestUnusableClientKeyIsRefusedAtStart(t *testing.T) {
	ecKey := must(x509.MarshalECPrivateKey(keyA()))
	half := pkcs8(rsaKey())
	half = half[:len(half)/2]
	damaged := strings.Replace(pkcs8(keyA()), "\n", "\n!!", 1)
	for name, tc := range map[string]struct{ content, want string }{
		"empty":                {" \n", "is empty"},
		"DER":                  {string(ecKey), "is neither PEM nor a JSON Web Key"},
		"half a block":         {half, "damaged or incomplete"},
		"damaged first block":  {damaged + pkcs8(keyB()), "damaged or incomplete"},
		"garbage in a block":   {pemBlock("PRIVATE KEY", []byte("garbage")), "cannot be read"},
		"PKCS #8, encrypted":   {pemBlock("ENCRYPTED PRIVATE KEY", ecKey), "encrypted key"},
		"PKCS #1, encrypted":   {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", "encrypted key"},
		"public key":           {publicPEM(rsaKey()), "public key"},
		"certificate alone":    {pemBlock("CERTIFICATE", certificate(rsaKey())), "a certificate and no private key"},
		"other certificate":    {pkcs8(rsaKey()) + pemBlock("CERTIFICATE", certificate(otherRSA())), "belongs to another key"},
		"OpenSSH":              {pemBlock("OPENSSH PRIVATE KEY", ecKey), "OpenSSH"},
		"other block":          {pemBlock("CERTIFICATE REQUEST", ecKey), "CERTIFICATE REQUEST"},
		"RSA of 1024 bits":     {pkcs8(weakRSA()), "1024 bits"},
		"weak second key":      {pkcs8(rsaKey()) + pkcs8(weakRSA()), "key 2: is an RSA key of 1024 bits"},
		"P-224":                {pkcs8(key224()), "P-224"},
		"X25519":               {pkcs8(must(ecdh.X25519().GenerateKey(rand.Reader))), "not an RSA, EC or Ed25519 key"},
		"same key twice":       {pkcs8(keyA()) + pkcs8(keyA()), "same kid"},
		"too many keys":        {jwkSet(manyJWKs(maxClientKeys + 1)...), "more than 8 keys"},
		"half a JWK":           {asJSON(privateJWK(keyA()))[:40], "not valid JSON"},
		"JWK, public":          {asJSON(publicJWK(keyA(), "a")), "public key"},
		"JWK, symmetric":       {`{"kty":"oct","k":"` + canary + `"}`, "symmetric key"},
		"JWK, not one":         {`{"client_id":"` + canary + `"}`, "kty is missing"},
		"JWK, odd kty":         {`{"kty":"` + canary + `","d":"AAAA"}`, "not an RSA, EC or Ed25519 key"},
		"JWK, incomplete":      {asJSON(privateJWK(rsaKey(), "p", nil)), "missing or invalid members"},
		"JWK, RSA with ES256":  {asJSON(privateJWK(rsaKey(), "alg", "ES256")), `alg "ES256"`},
		"JWK, EC with RS256":   {asJSON(privateJWK(keyA(), "alg", "RS256")), `alg "RS256"`},
		"JWK, P-256 with 384":  {asJSON(privateJWK(keyA(), "alg", "ES384")), `alg "ES384"`},
		"JWK, HMAC":            {asJSON(privateJWK(rsaKey(), "alg", "HS256")), `alg "HS256"`},
		"JWK, none":            {asJSON(privateJWK(rsaKey(), "alg", "none")), `alg "none"`},
		"JWK, encryption":      {asJSON(privateJWK(rsaKey(), "use", "enc")), "use other than sig"},
		"JWK, verifies only":   {asJSON(privateJWK(rsaKey(), "key_ops", []string{"verify"})), "key_ops without sign"},
		"JWK, odd kid":         {asJSON(privateJWK(keyA(), "kid", "a\nb")), "kid that is not"},
		"JWK, long kid":        {asJSON(privateJWK(keyA(), "kid", strings.Repeat("x", 300))), "kid that is not"},
		"JWK, halves differ":   {asJSON(edit(privateJWK(keyA()), "d", privateJWK(keyB())["d"])), "inconsistent"},
		"JWK, Ed25519 halves":  {asJSON(edit(privateJWK(edKey()), "x", publicJWK(otherEd(), "")["x"])), "invalid members"},
		"JWK Set without keys": {`{"keys":[]}`, "without keys"},
		"JWK Set, second bad":  {jwkSet(privateJWK(keyA()), publicJWK(keyB(), "b")), "key 2: holds a public key"},
		"large":                {strings.Repeat("x", maxKeyFile+1), "larger than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := keyFileOf(t, tc.content)
			wantKeyError(t, path, tc.want)
		})
	}
	t.Run("missing", func(t *testing.T) { wantKeyError(t, filepath.Join(t.TempDir(), "none"), "no such file") })
	t.Run("directory", func(t *testing.T) { wantKeyError(t, t.TempDir(), "not a regular file") })
	t.Run("unreadable", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root can read every file")
		}
		path := keyFileOf(t, pkcs8(keyA()))
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		wantKeyError(t, path, "permission denied")
	})
}

func manyJWKs(n int) (keys []any) {
	for i := range n {
		keys = append(keys, privateJWK(keyA(), "kid", fmt.Sprint(i)))
	}
	return keys
}

// wantKeyError checks the error of New, which must contain nothing of the file.
func wantKeyError(t *testing.T, path, want string) {
	t.Helper()
	_, err := New(Config{Issuer: "https://idp.test", ClientID: "app", ClientKeyFile: path})
	if err == nil || !strings.Contains(err.Error(), "client_key "+path+": ") || !strings.Contains(err.Error(), want) {
		t.Fatalf("got error %v, want one with client_key, the file and %q", err, want)
	}
	checkNoSecret(t, err)
	content, _ := os.ReadFile(path)
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); len(line) >= 20 && !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line[:20]) {
			t.Errorf("got error %v, want one without the content of the file", err)
		}
	}
}

// TestCertificateThumbprintIsSent: servers such as Entra ID find the key by x5t#S256.
func TestCertificateThumbprintIsSent(t *testing.T) {
	der := certificate(rsaKey())
	sum := sha256.Sum256(der)
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	for name, content := range map[string]string{
		"PEM":                 pkcs8(rsaKey()) + pemBlock("CERTIFICATE", der),
		"PEM, chain in front": pemBlock("CERTIFICATE", certificate(otherRSA())) + pemBlock("CERTIFICATE", der) + pkcs8(rsaKey()),
		"JWK with x5c":        asJSON(privateJWK(rsaKey(), "x5c", []string{base64.StdEncoding.EncodeToString(der)})),
		"JWK with x5t#S256":   asJSON(privateJWK(rsaKey(), "x5t#S256", want)),
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.respond("/token", 200, goodTokens)
			c := s.client(withKey(keyFileOf(t, content)))
			if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil {
				t.Fatal(err)
			}
			if got := s.lastAssertion(c).header["x5t#S256"]; got != want {
				t.Errorf("got x5t#S256 %v, want %s", got, want)
			}
			if got := base64.RawURLEncoding.EncodeToString(publishedKeys(t, c)[0].CertificateThumbprintSHA256); got != want {
				t.Errorf("got published x5t#S256 %s, want %s", got, want)
			}
		})
	}
}
