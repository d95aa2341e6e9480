// Package tlskeys refuses TLS certificates with short RSA keys. The
// connections to authorization servers and to Redis use it. It does not verify
// certificates: crypto/tls has done so before.
package tlskeys

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
)

// minRSABits is the shortest accepted RSA key. crypto/tls accepts 1024 bits.
const minRSABits = 2048

// RefuseWeak is a [tls.Config.VerifyConnection]. It accepts a connection if one
// verified chain has no RSA key shorter than 2048 bits below its root. It does
// not check the root, which the operator has chosen. The error is a
// *tls.CertificateVerificationError.
func RefuseWeak(s tls.ConnectionState) error {
	for _, chain := range s.VerifiedChains {
		if !slices.ContainsFunc(chain[:len(chain)-1], isWeak) {
			return nil
		}
	}
	return &tls.CertificateVerificationError{
		UnverifiedCertificates: s.PeerCertificates,
		Err:                    fmt.Errorf("an RSA key of the certificate has less than %d bits", minRSABits),
	}
}

func isWeak(c *x509.Certificate) bool {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	return ok && key.N.BitLen() < minRSABits
}
