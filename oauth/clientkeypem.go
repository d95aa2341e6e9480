package oauth

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

var (
	errNotAKeyFile  = errors.New("is neither PEM nor a JSON Web Key")
	errEncryptedKey = errors.New("holds an encrypted key: write it without a passphrase (openssl pkey -in <file> -out <new file>)")
	errPublicKey    = errors.New("holds a public key: the private key is needed")
)

// parsePEMKeys reads the private keys (PKCS #8, PKCS #1, SEC 1) and certificates of a
// PEM file. A certificate belongs to the key with the same public key.
func parsePEMKeys(content []byte) ([]clientKey, error) {
	if len(content) == 0 {
		return nil, errors.New("is empty")
	}
	var keys []clientKey
	var certificates []*x509.Certificate
	begun := bytes.Count(content, []byte("-----BEGIN "))
	for rest := content; ; begun-- {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
			key, err := parsePEMKey(block)
			if err != nil {
				return nil, err
			}
			keys = append(keys, clientKey{private: key})
		case "CERTIFICATE":
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, errors.New("holds a certificate that cannot be read")
			}
			certificates = append(certificates, certificate)
		case "EC PARAMETERS": // openssl ecparam -genkey writes them before the key
		default:
			return nil, unusableBlock(block.Type)
		}
	}
	switch {
	case begun > 0: // pem.Decode skips a block that it cannot read
		return nil, errors.New("holds a PEM block that is damaged or incomplete")
	case len(keys) == 0 && len(certificates) > 0:
		return nil, errors.New("holds a certificate and no private key")
	case len(keys) == 0:
		return nil, errNotAKeyFile
	}
	return withCertificates(keys, certificates)
}

func parsePEMKey(block *pem.Block) (crypto.Signer, error) {
	if block.Headers["DEK-Info"] != "" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, errEncryptedKey
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("holds a private key that cannot be read: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errUnknownKey // a key for key agreement, such as X25519
	}
	return signer, nil
}

// unusableBlock explains a PEM block that is of no use for signing.
func unusableBlock(kind string) error {
	switch kind {
	case "ENCRYPTED PRIVATE KEY":
		return errEncryptedKey
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return errPublicKey
	case "OPENSSH PRIVATE KEY":
		return errors.New("holds a key in the form of OpenSSH: write it as PKCS #8 (ssh-keygen -p -m PKCS8)")
	}
	return fmt.Errorf("holds a PEM block %s: give private keys, and their certificates", quote(kind))
}

// withCertificates sets the thumbprints of the keys' certificates. Certificates of
// issuers may be there, too, but none without any of a key: then the files have been
// mixed up.
func withCertificates(keys []clientKey, certificates []*x509.Certificate) ([]clientKey, error) {
	found := len(certificates) == 0
	for i, key := range keys {
		for _, certificate := range certificates {
			public, ok := key.private.Public().(interface{ Equal(crypto.PublicKey) bool })
			if !ok || !public.Equal(certificate.PublicKey) {
				continue
			}
			thumbprint := sha256.Sum256(certificate.Raw)
			keys[i].certificate, found = thumbprint[:], true
			break
		}
	}
	if !found {
		return nil, errors.New("holds a certificate, but it belongs to another key")
	}
	return keys, nil
}
