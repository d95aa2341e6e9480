package security

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// An authority issues certificates for localhost.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	file        string // path of its certificate, PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority " + rand.Text()},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, key.Public(), key)
	if err == nil {
		a.certificate, err = x509.ParseCertificate(der)
	}
	a.file = filepath.Join(t.TempDir(), "authority.pem")
	if err == nil {
		err = os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issue returns a valid certificate, except for the changes of change. A nil key becomes a
// P-256 key; with self the certificate is self-signed.
func (a *authority) issue(t *testing.T, key crypto.Signer, self bool, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	var err error
	if key == nil {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(leaf)
	}
	parent, signer := a.certificate, crypto.Signer(a.key)
	if self {
		parent, signer = leaf, key
	}
	var der []byte
	if err == nil {
		der, err = x509.CreateCertificate(rand.Reader, leaf, parent, key.Public(), signer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A tlsProxy terminates TLS in front of a server.
type tlsProxy struct {
	addr          string // localhost:port
	connections   atomic.Int64
	receivedBytes atomic.Int64 // decrypted bytes from clients
}

func startTLSProxy(t *testing.T, config *tls.Config, target string) *tlsProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String()) // a TCP address always has a port
	f := &tlsProxy{addr: net.JoinHostPort("localhost", port)}
	var mu sync.Mutex
	var open []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			running.Go(func() { f.relay(tls.Server(conn, config), target) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return f
}

func (f *tlsProxy) relay(conn *tls.Conn, target string) {
	defer conn.Close()
	f.connections.Add(1)
	if conn.Handshake() != nil {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	go func() {
		defer conn.Close()
		_, _ = io.Copy(conn, server) // until either side closes
	}()
	defer server.Close()
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		f.receivedBytes.Add(int64(n))
		if err != nil {
			return
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// badTLSConfigs returns configurations of servers that a client must refuse, by their
// defect.
func badTLSConfigs(t *testing.T, a *authority) map[string]*tls.Config {
	t.Helper()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	old := with(a.issue(t, nil, false, nil))
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	return map[string]*tls.Config{
		"self-signed":     with(a.issue(t, nil, true, nil)),
		"other-authority": with(newAuthority(t).issue(t, nil, false, nil)),
		"expired":         with(a.issue(t, nil, false, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })),
		"not-yet-valid":   with(a.issue(t, nil, false, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })),
		"other-name":      with(a.issue(t, nil, false, func(c *x509.Certificate) { c.DNSNames = []string{"evil.test"} })),
		"only-cn":         with(a.issue(t, nil, false, func(c *x509.Certificate) { c.DNSNames = nil })),
		"for-clients": with(a.issue(t, nil, false, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})),
		"weak-rsa": with(a.issue(t, weak, false, nil)),
		"tls-1-1":  old,
	}
}

// TestS105ServerCertificateIsVerified: the site sends nothing to an authorization server
// without a valid certificate. No option turns this off.
func TestS105ServerCertificateIsVerified(t *testing.T) {
	w := shared(t)
	a := newAuthority(t)
	type server struct {
		*variant
		*tlsProxy
		valid bool
	}
	var all []server
	var variants []*variant
	add := func(name string, config *tls.Config, valid bool) {
		idp := fakeas.Start(t, fakeas.Options{})
		f := startTLSProxy(t, config, strings.TrimPrefix(idp.URL, "http://"))
		idp.URL = "https://" + f.addr
		all = append(all, server{&variant{name: "tls-" + name, options: "trusted_ca " + a.file, idp: idp}, f, valid})
		variants = append(variants, all[len(all)-1].variant)
	}
	add("valid", &tls.Config{Certificates: []tls.Certificate{a.issue(t, nil, false, nil)}}, true)
	for name, config := range badTLSConfigs(t, a) {
		add(name, config, false)
	}
	w.addVariants(t, variants...)
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			resp := w.browser().nav(t, s.variant.url+"/x")
			switch {
			case s.valid && resp.Status != http.StatusFound:
				t.Errorf("got %v, want a login", resp)
			case !s.valid && (resp.Status != http.StatusServiceUnavailable || s.receivedBytes.Load() > 0):
				t.Errorf("got %d, want 503; the site sent %d bytes", resp.Status, s.receivedBytes.Load())
			case s.connections.Load() == 0:
				t.Error("the site did not connect")
			}
			w.checkGenericPage(t, resp.Body)
		})
	}
}

// TestS105RedisCertificateIsVerified: the site sends nothing to a Redis without a valid
// certificate.
func TestS105RedisCertificateIsVerified(t *testing.T) {
	w := sharedRedis(t)
	a := newAuthority(t)
	type server struct {
		*variant
		*tlsProxy
	}
	var all []server
	var variants []*variant
	add := func(name string, config *tls.Config) {
		f := startTLSProxy(t, config, w.redis.Addr)
		v := &variant{name: "redis-" + name, options: "store redis rediss://" + f.addr + " {\n\ttls {\n\tca " + a.file + "\n}\n}"}
		all, variants = append(all, server{v, f}), append(variants, v)
	}
	for name, config := range badTLSConfigs(t, a) {
		add(name, config)
	}
	valid := startTLSProxy(t, &tls.Config{Certificates: []tls.Certificate{a.issue(t, nil, false, nil)}}, w.redis.Addr)
	control := &variant{name: "redis-valid", options: "store redis rediss://" + valid.addr + " {\n\ttls {\n\tca " + a.file + "\n}\n}"}
	w.addVariants(t, append(variants, control)...)
	control.login(t, w.browser(), "u")
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			b := w.browser()
			page := s.signIn(t, b, "u")
			checkNoLogin(t, page, s.session(b), http.StatusServiceUnavailable)
			if s.connections.Load() == 0 || s.receivedBytes.Load() > 0 {
				t.Errorf("got %d connections and %d bytes, want at least 1 and none", s.connections.Load(), s.receivedBytes.Load())
			}
		})
	}
}
