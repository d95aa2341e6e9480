// Command setup installs and builds everything the end-to-end tests need and says nothing when all is there:
//
//	go run ./cmd/setup
//
// Missing Debian packages are installed with apt-get, which takes root; without it the command says what is missing.
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

// missingPackages returns the Debian packages whose programs are not there, whatever their origin would be.
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
		{"gcc", []string{"gcc", "libc6-dev"}}, // for the race detector, and the model
		{"spin", []string{"spin"}},            // for the model
		{"redis-server", []string{"redis-server"}},
		{"ip", []string{"iproute2"}}, // for network namespaces
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
		return fmt.Errorf("missing programs, and no apt-get to install them: %s", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing programs; as root, run: apt-get install %s", list)
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
		return fmt.Errorf("asking node for its version: %w", err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < minNode {
		return fmt.Errorf("node %s is too old; version %d or later is needed", strings.TrimSpace(string(out)), minNode)
	}
	return nil
}
