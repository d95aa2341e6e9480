//go:build !unix

package redis

// freeze skips the test: only Unix can stop and continue a process.
func (s *server) freeze() (thaw func()) {
	s.tb.Helper()
	s.tb.Skip("needs SIGSTOP")
	return func() {}
}
