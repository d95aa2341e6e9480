//go:build unix

package loopback

import (
	"os"
	"syscall"
)

// lock takes the file for this open file description alone, without waiting.
func lock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
