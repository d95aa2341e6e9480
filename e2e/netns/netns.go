// Package netns runs parts of a test in separate network namespaces, which one switch joins. A test can cut a namespace
// off from the switch: packets are then lost and no error is reported. The package needs Linux and root.
//
// The namespaces have no names. Each exists as long as the test holds it open or a process runs in it. Even a killed test
// leaves nothing behind.
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

// commandLimit bounds one ip command.
const commandLimit = 120 * time.Second

// A Namespace has its own loopback interface and one interface to the switch.
type Namespace struct {
	// IP is its address for the other namespaces.
	IP   string
	file *os.File
}

// A Switch is a namespace with a bridge that joins other namespaces.
type Switch struct {
	Namespace
	ports map[*Namespace]string // interface names on the bridge
}

const bridge = "switch"

// NewSwitch creates a switch without other namespaces. It skips the test if the system does not permit namespaces.
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

// Join creates a namespace and connects it to the switch.
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

// Cut disconnects a namespace from the switch. Its link stays up, but all its packets are lost.
func (s *Switch) Cut(t testing.TB, n *Namespace) {
	t.Helper()
	s.ip(t, "link set %s nomaster", s.ports[n])
}

// Heal connects the namespace again.
func (s *Switch) Heal(t testing.TB, n *Namespace) {
	t.Helper()
	s.ip(t, "link set %s master %s", s.ports[n], bridge)
}

// open creates the namespace.
func (n *Namespace) open(t testing.TB) {
	t.Helper()
	err := onLockedThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("creating a network namespace: %w", err)
		}
		n.file, err = os.Open(threadNamespace)
		return err
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("the system permits no network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.file.Close() })
	n.ip(t, "link set lo up")
}

// Do calls f in the namespace. Sockets and processes that f creates stay there. Goroutines that f starts run outside.
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
	return onLockedThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// threadNamespace is the network namespace of the current thread.
const threadNamespace = "/proc/thread-self/ns/net"

// onLockedThread calls f on a thread that runs no other goroutine, and then restores the thread's namespace.
//
// The thread must survive: with package proc, the kernel kills a child when the thread that started it ends.
func onLockedThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.Open(threadNamespace)
	if err != nil {
		return err
	}
	defer before.Close()
	defer func() { // runs also if f ends the test
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("leaving a network namespace: %v", err))
		}
	}()
	return f()
}

// ip runs an ip command of iproute2 in the namespace.
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
