//go:build !unix

package redis

// freeze skips the test: only Unix can stop a process and let it go on.
func (s *server) freeze() (thaw func()) {
	s.tb.Helper()
	s.tb.Skip("a process cannot be stopped here")
	return func() {}
}
