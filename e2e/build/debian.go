package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Unpacked returns a directory with the files of Debian packages, and of those packages they depend on that the system
// lacks. It needs apt-get, but not root.
//
// The packages are not installed: an installed server would run as a service, with its default password.
func Unpacked(ctx context.Context, name string, packages ...string) (string, error) {
	return Cached(name, []string{"/etc/os-release"}, func(dir string) error {
		apt, err := os.MkdirTemp("", "apt-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(apt)
		archives := filepath.Join(apt, "archives")
		for _, sub := range []string{"lists/partial", "archives/partial"} {
			if err := os.MkdirAll(filepath.Join(apt, sub), 0o755); err != nil {
				return err
			}
		}
		options := []string{
			"--quiet", "-o", "Debug::NoLocking=1", "-o", "Dir::State::lists=" + filepath.Join(apt, "lists"),
			"-o", "Dir::Cache=" + apt, "-o", "Dir::Cache::archives=" + archives,
			"-o", fmt.Sprintf("APT::Sandbox::User=#%d", os.Getuid()),
		}
		if err := Run(ctx, "", nil, "apt-get", append(options, "update")...); err != nil {
			return err
		}
		// Without --reinstall, packages that are installed already would be missing.
		install := append(options, "install", "--yes", "--download-only", "--reinstall", "--no-install-recommends")
		if err := Run(ctx, "", nil, "apt-get", append(install, packages...)...); err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(archives, "*.deb"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := Run(ctx, "", nil, "dpkg-deb", "--extract", file, dir); err != nil {
				return err
			}
		}
		return nil
	})
}
