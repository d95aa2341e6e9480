package loopback

import (
	"context"
	"net"
	"syscall"
	"testing"
)

// soReusePort is SO_REUSEPORT on Linux, which package syscall lacks.
const soReusePort = 0xf

func TestListensTwiceSeesASecondListener(t *testing.T) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1) })
	}}
	first, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	want := func(want bool) {
		t.Helper()
		if got, err := ListensTwice("self"); err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	want(false)
	second, err := config.Listen(context.Background(), "tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	want(true)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	want(false)
}
