// Package check ends a benchmark at its first error. A failed check panics, so deferred functions
// still stop processes and remove files. [Run] returns the error of the panic.
package check

import (
	"fmt"
	"os"
)

// failure is the value of the panic.
type failure struct{ error }

// OK fails unless the error is nil.
func OK(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Value returns a value and fails unless the error is nil.
func Value[T any](value T, err error) T {
	OK(err)
	return value
}

// Failf fails with a formatted error.
func Failf(format string, args ...any) { OK(fmt.Errorf(format, args...)) }

// Doing adds context to a failure. It must be deferred directly.
func Doing(format string, args ...any) {
	r := recover()
	if f, failed := r.(failure); failed {
		Failf("%s: %w", fmt.Sprintf(format, args...), f.error)
	} else if r != nil {
		panic(r)
	}
}

// Run calls a function and returns the error of a failed check. It does not see those of other
// goroutines.
func Run(f func()) (err error) {
	defer func() {
		r := recover()
		if f, failed := r.(failure); failed {
			err = f.error
		} else if r != nil {
			panic(r)
		}
	}()
	f()
	return nil
}

// Main runs a command and exits with status 1 after a failed check.
func Main(f func()) {
	if err := Run(f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
