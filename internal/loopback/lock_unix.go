//go:build unix

package loopback

import (
	"os"
	"syscall"
)

// lock takes an exclusive lock on the open file. It fails at once if another descriptor holds the lock.
func lock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
