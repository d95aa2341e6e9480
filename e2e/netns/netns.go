// Package netns runs parts of a test in network namespaces of their own, joined by a switch whose cables can be pulled: what
// is sent then vanishes, and nobody is told. It takes Linux and root.
//
// The namespaces have no names. Each is there as long as the test holds it open or a process runs in it, so that nothing is
// left behind even by a test that is killed.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// commandLimit bounds one command of ip.
const commandLimit = 120 * time.Second

// A Namespace has a loopback interface of its own, and one to the switch.
type Namespace struct {
	// IP is the address by which the others reach it.
	IP   string
	file *os.File
}

// A Switch is a namespace with a bridge in it that joins others.
type Switch struct {
	Namespace
	ports map[*Namespace]string // on the bridge
}

const bridge = "switch"

// NewSwitch makes a switch with no other namespaces yet. The test is skipped where that is not permitted.
func NewSwitch(t testing.TB) *Switch {
	t.Helper()
	s := &Switch{ports: map[*Namespace]string{}}
	s.IP = "10.0.0.1"
	s.open(t)
	s.ip(t, "link add %s type bridge", bridge)
	s.ip(t, "addr add %s/24 dev %s", s.IP, bridge)
	s.ip(t, "link set %s up", bridge)
	return s
}

// Join makes a namespace that is connected to the switch.
func (s *Switch) Join(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{IP: fmt.Sprintf("10.0.0.%d", 2+len(s.ports))}
	n.open(t)
	port := fmt.Sprintf("port%d", len(s.ports))
	s.ip(t, "link add %s type veth peer name eth0 netns /proc/%d/fd/%d", port, os.Getpid(), n.file.Fd())
	s.ip(t, "link set %s master %s up", port, bridge)
	n.ip(t, "addr add %s/24 dev eth0", n.IP)
	n.ip(t, "link set eth0 up")
	s.ports[n] = port
	return n
}

// Cut pulls the cable of a namespace out of the switch. The link stays up: what is sent vanishes.
func (s *Switch) Cut(t testing.TB, n *Namespace) {
	t.Helper()
	s.ip(t, "link set %s nomaster", s.ports[n])
}

// Heal plugs it in again.
func (s *Switch) Heal(t testing.TB, n *Namespace) {
	t.Helper()
	s.ip(t, "link set %s master %s", s.ports[n], bridge)
}

// open makes the namespace itself.
func (n *Namespace) open(t testing.TB) {
	t.Helper()
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		n.file, err = os.Open(own)
		return err
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("no network namespaces here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.file.Close() })
	n.ip(t, "link set lo up")
}

// Do calls f in the namespace: what f itself opens, dials or starts is there for good. That does not hold for goroutines
// which f starts.
func (n *Namespace) Do(t testing.TB, f func()) {
	t.Helper()
	if err := n.enter(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// Dial connects to an IP address in the namespace.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = n.enter(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func (n *Namespace) enter(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// own is the namespace of the thread that looks.
const own = "/proc/thread-self/ns/net"

// onOwnThread calls f on a thread that nobody else uses meanwhile, and brings the thread back to where it was.
//
// The thread must not simply end: package proc has children killed that were started from a thread which ends.
func onOwnThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.Open(own)
	if err != nil {
		return err
	}
	defer before.Close()
	defer func() { // also when f ends the test
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("cannot leave a network namespace: %v", err))
		}
	}()
	return f()
}

// ip runs a command of iproute2 in the namespace.
func (n *Namespace) ip(t testing.TB, format string, args ...any) {
	t.Helper()
	exe, err := exec.LookPath("ip")
	if err != nil {
		t.Skipf("%v; `go run ./cmd/setup` installs it", err)
	}
	line := fmt.Sprintf(format, args...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandLimit)
	defer cancel()
	var out []byte
	n.Do(t, func() { out, err = exec.CommandContext(ctx, exe, strings.Fields(line)...).CombinedOutput() })
	if err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}
