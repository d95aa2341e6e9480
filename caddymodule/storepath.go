package caddymodule

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks bounds the elements and symbolic links of one path.
const maxLinks = 256

// realPath returns the canonical path of a file, which need not exist: absolute, and
// without symbolic links. Different spellings of a path must lead to one store, because
// the file can be open only once.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return followLinks(path, maxLinks)
}

func followLinks(path string, left int) (string, error) {
	if left <= 0 {
		return "", fmt.Errorf("%s: too many elements and symbolic links", path)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	// The last element of the path does not exist. It may be a dangling link.
	dir := filepath.Dir(path)
	if dir == path {
		return path, nil // the root
	}
	dir, err := followLinks(dir, left-1)
	if err != nil {
		return "", err
	}
	if target, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		return followLinks(target, left-1)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// pathInUse returns the path under which the file is already in the pool, or else path.
// Hard links, and spellings that a file system treats as equal, have different canonical
// paths.
func pathInUse(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return path
	}
	pool.Range(func(_, value any) bool {
		v, ok := value.(*pooledVault)
		if !ok {
			return true
		}
		used, ok := strings.CutPrefix(v.name, boltIDPrefix)
		if !ok {
			return true
		}
		if other, err := os.Stat(used); err != nil || !os.SameFile(info, other) {
			return true
		}
		path = used
		return false
	})
	return path
}
