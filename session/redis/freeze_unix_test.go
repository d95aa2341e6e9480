//go:build unix

package redis

import "syscall"

// freeze stops the server process until thaw is called.
func (s *server) freeze() (thaw func()) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		s.tb.Fatal(err)
	}
	return func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }
}
