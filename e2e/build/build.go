// Package build builds the programs of the tests: authorization servers, and Caddy with the module under test.
//
// It builds a program from outside the checkout once per version, below caddy-oauth-session-e2e in the user's cache
// directory. It prints nothing. An error contains the whole output of the failed command.
package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// CacheDir returns the directory of all built programs. It creates the directory if it is missing.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	dir := filepath.Join(base, "caddy-oauth-session-e2e")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("creating the cache directory: %w", err)
	}
	return dir, nil
}

// ModuleDir returns the directory of the end-to-end module, which contains the sources of the test programs.
var ModuleDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("asking go for the module's directory: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.mod" {
		return "", errors.New("the tests must run inside their module")
	}
	return filepath.Dir(file), nil
})

// Cached returns a directory with the results of fill. Its name is made of name and a hash of the input files.
//
// Cached calls fill only if the directory does not exist. Other processes that need the same directory wait for fill to
// end. If fill fails, Cached removes its results.
func Cached(name string, inputs []string, fill func(dir string) error) (string, error) {
	sum, err := hashFiles(inputs)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name+"-"+sum)
	unlock, err := Lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()

	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for %s: %w", name, err)
	}
	partial, err := os.MkdirTemp(cache, name+"-partial-")
	if err != nil {
		return "", fmt.Errorf("making %s: %w", name, err)
	}
	defer os.RemoveAll(partial)
	if err := fill(partial); err != nil {
		return "", fmt.Errorf("making %s: %w", name, err)
	}
	// The rename ensures that an existing directory is complete.
	if err := os.Rename(partial, dir); err != nil {
		return "", fmt.Errorf("making %s: %w", name, err)
	}
	return dir, nil
}

// Lock waits for an exclusive lock on the file. The system releases the lock at the end of the process.
func Lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening a lock file: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}

// Run runs a command in dir with additional environment variables. An error contains the command's output.
func Run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s %s: %w\n%s", name, strings.Join(args, " "), err, out.Bytes())
	}
	return nil
}

func hashFiles(files []string) (string, error) {
	h := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the source of a test program: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(file), len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
