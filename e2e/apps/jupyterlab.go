package apps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// notebook is a notebook with one cell.
const notebook = `{"cells": [{"cell_type": "code", "id": "only", "execution_count": null, "metadata": {}, "outputs": [], "source": %q}],
"metadata": {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}`

// JupyterLab starts JupyterLab with notebooks, by name and code of their only cell. It returns its address.
func JupyterLab(t testing.TB, notebooks map[string]string, args ...string) string {
	t.Helper()
	python, err := python()
	if err != nil {
		t.Fatal(err)
	}
	dir, home := t.TempDir(), t.TempDir()
	for name, code := range notebooks {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, notebook, code), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := proc.FreePort(t)
	args = append([]string{
		"-m", "jupyterlab", "--no-browser", "--allow-root",
		"--ServerApp.ip=127.0.0.1", fmt.Sprintf("--ServerApp.port=%d", port), "--ServerApp.port_retries=0", "--ServerApp.root_dir=" + dir,
	}, args...)
	cmd := exec.Command(python, args...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	p := proc.Start(t, "jupyterlab", cmd)
	awaitOK(t, p, "http://"+address(port)+"/api")
	return address(port)
}
