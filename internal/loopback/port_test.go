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
			t.Errorf("port %d was reserved twice: error %v", port, err)
		}
	})
	again, err := reserve(dir, port)
	if err != nil {
		t.Fatalf("port %d is still reserved after the test: %v", port, err)
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
	other := t.TempDir() // where the port is not reserved
	if _, err := reserve(other, port); !errors.Is(err, errPortTaken) {
		t.Errorf("port %d has a listener and was reserved: error %v", port, err)
	}
	if _, err := reserve(dir, port); err == nil {
		t.Errorf("port %d was reserved twice", port)
	}
}
