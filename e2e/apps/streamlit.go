package apps

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// Streamlit starts the app of streamlit/app.py and returns its address.
func Streamlit(t testing.TB, args ...string) string {
	t.Helper()
	python, err := python()
	if err != nil {
		t.Fatal(err)
	}
	app, err := source("streamlit", "app.py")
	if err != nil {
		t.Fatal(err)
	}
	port := proc.FreePort(t)
	args = append([]string{
		"-m", "streamlit", "run", app, "--server.address=127.0.0.1", fmt.Sprintf("--server.port=%d", port),
		"--server.headless=true", "--browser.gatherUsageStats=false",
	}, args...)
	cmd := exec.Command(python, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	p := proc.Start(t, "streamlit", cmd)
	awaitOK(t, p, "http://"+address(port)+"/_stcore/health")
	return address(port)
}
