package build

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// A GoProgram is a main package in a nested module, so that its dependencies do not affect other modules.
type GoProgram struct {
	Name    string   // of the executable
	Dir     string   // of the nested module, below ModuleDir
	Package string   // "." if empty
	Flags   []string // of go build
	Env     []string // additional environment of go build
}

// Once returns the path of the executable. It builds the program only if the module's go.mod, go.sum or Go files have
// changed. The program must not depend on other files of the checkout.
func (p GoProgram) Once(ctx context.Context) (string, error) {
	src, err := p.source()
	if err != nil {
		return "", err
	}
	inputs, err := filepath.Glob(filepath.Join(src, "*.go"))
	if err != nil {
		return "", err
	}
	inputs = append(inputs, filepath.Join(src, "go.mod"), filepath.Join(src, "go.sum"))
	dir, err := Cached(p.Name, inputs, func(dir string) error {
		return p.build(ctx, src, filepath.Join(dir, p.Name))
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, p.Name), nil
}

// Always builds the executable from the current checkout, into a directory for this checkout and variant. Go's build
// cache makes repeated builds fast.
func (p GoProgram) Always(ctx context.Context, variant string) (string, error) {
	src, err := p.source()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	// The path of the checkout is part of the name, so that two checkouts do not share an executable.
	sum := sha256.Sum256([]byte(src))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x%s", p.Name, sum[:8], variant))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making %s: %w", p.Name, err)
	}
	unlock, err := Lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	exe := filepath.Join(dir, p.Name)
	return exe, p.build(ctx, src, exe)
}

func (p GoProgram) source() (string, error) {
	root, err := ModuleDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, p.Dir), nil
}

func (p GoProgram) build(ctx context.Context, src, exe string) error {
	pkg := p.Package
	if pkg == "" {
		pkg = "."
	}
	args := append([]string{"build", "-o", exe}, p.Flags...)
	// The caller's GOFLAGS and GOWORK must not affect the nested module.
	env := append([]string{"GOWORK=off", "GOFLAGS=-buildvcs=false"}, p.Env...)
	return Run(ctx, src, env, "go", append(args, pkg)...)
}
