// Package apps runs real apps that work over WebSockets: JupyterLab, Streamlit and Node-RED.
//
// Each app is installed once per version with pip or npm, as package build does. It listens on a free loopback port and
// stops at the end of its test.
package apps

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// installLimit bounds pip and npm, which download some hundred megabytes.
const installLimit = 40 * time.Minute

// source returns the path of a file in this directory.
func source(name ...string) (string, error) {
	root, err := build.ModuleDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(append([]string{root, "apps"}, name...)...), nil
}

// python returns the interpreter of a virtual environment with the packages of requirements.txt.
var python = sync.OnceValues(func() (string, error) {
	requirements, err := source("requirements.txt")
	if err != nil {
		return "", err
	}
	dir, err := build.Cached("python-apps", []string{requirements}, func(dir string) error {
		ctx, cancel := context.WithTimeout(context.Background(), installLimit)
		defer cancel()
		if err := build.Run(ctx, dir, nil, "python3", "-m", "venv", dir); err != nil {
			return err
		}
		// A virtual environment may move, if its programs are started by the interpreter (python -m).
		return build.Run(ctx, dir, nil, filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet", "--requirement", requirements)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin", "python"), nil
})

// nodeRED returns the program.
var nodeRED = sync.OnceValues(func() (string, error) {
	var inputs []string
	for _, name := range []string{"package.json", "package-lock.json"} {
		file, err := source("node-red", name)
		if err != nil {
			return "", err
		}
		inputs = append(inputs, file)
	}
	dir, err := build.Cached("node-red", inputs, func(dir string) error {
		for _, input := range inputs {
			if err := os.CopyFS(dir, os.DirFS(filepath.Dir(input))); err != nil {
				return err
			}
			break
		}
		ctx, cancel := context.WithTimeout(context.Background(), installLimit)
		defer cancel()
		return build.Run(ctx, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "node_modules", "node-red", "red.js"), nil
})

// awaitOK waits until the app answers the URL with status 200.
func awaitOK(t testing.TB, p *proc.Process, rawURL string) {
	t.Helper()
	p.Await(t, "answer", func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
