// Package testrecorder counts the errors of a test helper under test. The real test does not fail.
package testrecorder

import "testing"

// A Recorder is a testing.TB that counts errors. Its other methods are those of the real test.
type Recorder struct {
	testing.TB
	Errors int // calls of Errorf
}

// Helper does nothing.
func (r *Recorder) Helper() {}

// Errorf counts an error and discards its message.
func (r *Recorder) Errorf(string, ...any) { r.Errors++ }

// Failed returns false, so that the helper under test does not print logs.
func (r *Recorder) Failed() bool { return false }
