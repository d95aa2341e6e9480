package loopback

import (
	"errors"
	"fmt"
	"net"
	"testing"
)

func TestPortIsReservedUntilTheTestEnds(t *testing.T) {
	dir, err := reservations()
	if err != nil {
		t.Fatal(err)
	}
	var port int
	t.Run("reserving", func(t *testing.T) {
		port = FreePort(t)
		if _, err := reserve(dir, port); !errors.Is(err, errPortTaken) {
			t.Errorf("reserving port %d again: got error %v, want errPortTaken", port, err)
		}
	})
	again, err := reserve(dir, port)
	if err != nil {
		t.Fatalf("reserving port %d after the test: got error %v, want none", port, err)
	}
	_ = again.Close()
}

func TestPortInUseIsNotReserved(t *testing.T) {
	dir, err := reservations()
	if err != nil {
		t.Fatal(err)
	}
	port := FreePort(t)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	unreserved := t.TempDir() // the port has no reservation in this directory
	if _, err := reserve(unreserved, port); !errors.Is(err, errPortTaken) {
		t.Errorf("reserving port %d with a listener: got error %v, want errPortTaken", port, err)
	}
	if _, err := reserve(dir, port); err == nil {
		t.Errorf("reserving port %d again: got no error, want one", port)
	}
}
