package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// canary returns a random value that the leak scan recognises in any output.
func canary(prefix string, digits int) string {
	b := make([]byte, digits/2)
	_, _ = rand.Read(b) // never fails: crypto/rand.Read ends the program instead
	return prefix + hex.EncodeToString(b)
}

// issuedCanary finds codes, tokens and sids of the fake authorization server. Three letters alone
// would also be found in random text, such as a state.
var issuedCanary = regexp.MustCompile(`(?:CODE|AT|RT|sid)_[0-9a-f]{16}`)

// newKey returns a server key with a readable beginning. Base64url of 32 bytes has 43
// characters; the last one carries four bits.
func newKey() string { return canary("SK_", 38) + "A0" }

// issueCertificate creates a certificate authority and a certificate for the names. It
// returns the `tls` line for a Caddyfile.
func issueCertificate(t testing.TB, names ...string) (authority *x509.CertPool, line string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	must(err)
	ca, err = x509.ParseCertificate(caDER)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	must(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(err)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}), 0o600))
	must(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	authority = x509.NewCertPool()
	authority.AddCert(ca)
	return authority, "tls " + certFile + " " + keyFile
}
