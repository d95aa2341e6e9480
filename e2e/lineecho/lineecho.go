// Package lineecho is a TCP server for tests that returns each line, and a client for it. Tests of network tools use it
// to find out which bytes arrive.
package lineecho

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Serve returns the bytes of all connections to the listener until the test ends.
func Serve(t testing.TB, listener net.Listener) {
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
}

// Exchange sends a line and reads it back. It fails with os.ErrDeadlineExceeded after the limit.
func Exchange(conn net.Conn, line string, limit time.Duration) error {
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != line+"\n" {
		return fmt.Errorf("got %q, want %q", got, line+"\n")
	}
	return err
}
