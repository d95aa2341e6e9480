package tomcat

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// Start runs a real Tomcat until the test ends and returns the addresses of its connectors, in the order of Readings. It
// needs Java, and Maven for the first download of Tomcat.
func Start(t testing.TB) (addrs []string) {
	t.Helper()
	root, err := build.ModuleDir()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(root, "tomcat")
	lib, err := build.Cached("tomcat", []string{filepath.Join(src, "pom.xml")}, func(dir string) error {
		return build.Run(t.Context(), src, nil, "mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory="+dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "java", "-cp", filepath.Join(lib, "*"), "Server.java")
	cmd.Dir = src
	p := proc.Start(t, "tomcat", cmd)
	ports := make([]int, len(Readings))
	if _, err := fmt.Sscan(p.AwaitLine(t, "ports "), &ports[0], &ports[1], &ports[2]); err != nil {
		t.Fatalf("reading Tomcat's ports: %v", err)
	}
	for _, port := range ports {
		addrs = append(addrs, net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
	}
	return addrs
}
