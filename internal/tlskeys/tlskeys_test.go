package tlskeys

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
)

func TestRefuseWeak(t *testing.T) {
	key := func(bits uint) *x509.Certificate {
		return &x509.Certificate{PublicKey: &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}}
	}
	weak, strong, elliptic := key(2047), key(2048), &x509.Certificate{PublicKey: &ecdsa.PublicKey{}}
	for _, tc := range []struct {
		name   string
		chains [][]*x509.Certificate
		ok     bool
	}{
		{"strong chain", [][]*x509.Certificate{{strong, strong, strong}}, true},
		{"elliptic curve", [][]*x509.Certificate{{elliptic, strong}}, true},
		{"weak root", [][]*x509.Certificate{{strong, weak}}, true},
		{"weak certificate", [][]*x509.Certificate{{weak, strong}}, false},
		{"weak intermediate", [][]*x509.Certificate{{strong, weak, strong}}, false},
		{"one strong chain of two", [][]*x509.Certificate{{strong, weak, strong}, {strong, strong}}, true},
		{"not verified", nil, false},
	} {
		err := RefuseWeak(tls.ConnectionState{VerifiedChains: tc.chains})
		if (err == nil) != tc.ok {
			t.Errorf("%s: got error %v, want accepted: %v", tc.name, err, tc.ok)
		}
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); err != nil && !ok {
			t.Errorf("%s: got error of type %T, want *tls.CertificateVerificationError", tc.name, err)
		}
	}
}
