package op

import (
	"context"
	"errors"
	"os/exec"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
)

var errNoDebian = errors.New("the system has no apt-get")

// debianServers returns the directory with the files of the servers that Debian packages: Glewlwyd, and Django OAuth
// Toolkit for the system's Python. The error is errNoDebian if there is no apt-get.
func debianServers(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", errNoDebian
	}
	// dbconfig-sqlite3 keeps apt-get from choosing MySQL for Glewlwyd.
	return build.Unpacked(ctx, "debian-servers", "glewlwyd", "dbconfig-sqlite3", "python3-django-oauth-toolkit")
}

// needDebianServers is debianServers for a test, which it skips on other systems.
func needDebianServers(t testing.TB) string {
	t.Helper()
	root, err := debianServers(t.Context())
	if errors.Is(err, errNoDebian) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}
