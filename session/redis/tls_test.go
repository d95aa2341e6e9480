package redis

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes name.crt and name.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	ca.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	ca.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	server := newServer(t)
	server.args = append(server.args, "--port", "0", "--tls-port", strconv.Itoa(server.port),
		"--tls-cert-file", ca.path("server.crt"), "--tls-key-file", ca.path("server.key"), "--tls-ca-cert-file", ca.path("ca.crt"))
	server.start()
	server.awaitAnswer()
	client, err := tls.LoadX509KeyPair(ca.path("client.crt"), ca.path("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	urls := []string{"rediss://" + server.addr()}
	s := open(t, Config{URLs: urls, TLS: &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{client}}})
	if err := callAll(t, s); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]Config{
		"no certificate":    {URLs: urls, TLS: &tls.Config{RootCAs: ca.pool()}},
		"unknown authority": {URLs: urls, TLS: &tls.Config{Certificates: []tls.Certificate{client}}},
		"defaults":          {URLs: urls},
		"wrong name":        {URLs: urls, TLS: &tls.Config{RootCAs: ca.pool(), Certificates: []tls.Certificate{client}, ServerName: "other"}},
		"no TLS":            {URLs: []string{server.url()}},
	} {
		if s, err := Open(c); err == nil {
			s.Close()
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}
