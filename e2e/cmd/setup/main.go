// Command setup installs and builds all programs of the end-to-end tests. It prints nothing on success:
//
//	go run ./cmd/setup
//
// It installs missing Debian packages with apt-get if it runs as root, and otherwise lists them in its error.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
)

// minNode is the oldest major version of node that runs oidc-provider.
const minNode = 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := setup(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

func setup(ctx context.Context) error {
	if err := installPackages(ctx, missingPackages()); err != nil {
		return err
	}
	if err := checkNode(ctx); err != nil {
		return err
	}
	_, errCaddy := caddyserver.Binary()
	return errors.Join(errCaddy, op.Install(ctx))
}

// missingPackages returns the Debian packages of missing programs. A program from another source counts as present.
func missingPackages() []string {
	var missing []string
	if _, err := browser.Path(); err != nil {
		missing = append(missing, "chromium")
	}
	for _, program := range []struct {
		name     string
		packages []string
	}{
		{"node", []string{"nodejs"}},
		{"npm", []string{"npm"}},
		{"gcc", []string{"gcc", "libc6-dev"}}, // for the race detector and docs/protocol
		{"spin", []string{"spin"}},            // for docs/protocol
		{"redis-server", []string{"redis-server"}},
		{"ip", []string{"iproute2"}},              // for network namespaces
		{"/usr/bin/python3", []string{"python3"}}, // for Debian's Django
	} {
		if _, err := exec.LookPath(program.name); err != nil {
			missing = append(missing, program.packages...)
		}
	}
	return missing
}

func installPackages(ctx context.Context, packages []string) error {
	if len(packages) == 0 {
		return nil
	}
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("apt-get is missing; install these packages by other means: %s", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("packages are missing; run as root: apt-get install %s", list)
	}
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if err := build.Run(ctx, "", env, "apt-get", "update"); err != nil {
		return err
	}
	args := append([]string{"install", "--yes", "--no-install-recommends"}, packages...)
	return build.Run(ctx, "", env, "apt-get", args...)
}

func checkNode(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("reading the version of node: %w", err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < minNode {
		return fmt.Errorf("node %s is too old: oidc-provider needs version %d or later", strings.TrimSpace(string(out)), minNode)
	}
	return nil
}
