package build

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// A GoProgram is a main package in a nested module of its own, so that its dependencies meet nobody else's.
type GoProgram struct {
	Name    string   // of the executable
	Dir     string   // the nested module, below ModuleDir
	Package string   // to build; "." when empty
	Flags   []string // for go build
	Env     []string
}

// Once returns the path of the executable and builds it when there is none for the module's present go.mod, go.sum and
// Go files. That suits programs which depend on nothing else in the checkout.
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

// Always builds the executable from the checkout as it is now, into a place of its own for this checkout and variant.
// The go command does the least work needed.
func (p GoProgram) Always(ctx context.Context, variant string) (string, error) {
	src, err := p.source()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	// Two checkouts must not run each other's build, so its path is part of the name.
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
	// GOFLAGS and GOWORK of the caller must not reach into a nested module.
	env := append([]string{"GOWORK=off", "GOFLAGS=-buildvcs=false"}, p.Env...)
	return Run(ctx, src, env, "go", append(args, pkg)...)
}
