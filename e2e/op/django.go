package op

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// python is the interpreter for which Debian packages Django.
const python = "/usr/bin/python3"

// Django starts Django OAuth Toolkit of Debian, with the app at the origin site as its client. Refresh tokens are single
// use; the successor survives a second use. Its metadata has an address of its own, DiscoveryURL, and names no endpoint
// for revocation; it has none for logout.
func Django(t testing.TB, site string, accessTokenLifetime time.Duration) *Server {
	t.Helper()
	root := needDebianServers(t)
	source, err := build.ModuleDir()
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{ClientID: "odd:id+1", ClientSecret: "p+s %41:&=/?~x", User: "alice", Password: "alice-password"}
	settings, err := json.Marshal(map[string]any{
		"port":           proc.FreePort(t),
		"database":       filepath.Join(t.TempDir(), "db"),
		"key":            string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"accessTokenTTL": int(accessTokenLifetime.Seconds()),
		"clientID":       s.ClientID,
		"clientSecret":   s.ClientSecret,
		"redirectURI":    site + "/oauth2/callback",
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, filepath.Join(source, "django", "op.py"), string(settings))
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(root, "usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1")
	s.Process = proc.Start(t, "django", cmd)
	s.Issuer = s.Process.AwaitLine(t, "ready ")
	s.DiscoveryURL = s.Issuer + "/.well-known/openid-configuration/"
	return s
}
