package netns

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/lineecho"
)

// patience bounds the wait for bytes that must arrive.
const patience = 2 * time.Minute

// startEcho starts a line echo server in the namespace and returns its address.
func startEcho(t *testing.T, n *Namespace) (addr string) {
	t.Helper()
	var listener net.Listener
	var err error
	n.Do(t, func() { listener, err = net.Listen("tcp", n.IP+":0") })
	if err != nil {
		t.Fatal(err)
	}
	lineecho.Serve(t, listener)
	return listener.Addr().String()
}

func dial(t *testing.T, n *Namespace, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := n.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestCutDelaysPacketsUntilHeal(t *testing.T) {
	t.Parallel()
	s := NewSwitch(t)
	cut, connected := s.Join(t), s.Join(t)
	addr := startEcho(t, &s.Namespace)
	cutConn, otherConn := dial(t, cut, addr), dial(t, connected, addr)
	for _, conn := range []net.Conn{cutConn, otherConn} {
		if err := lineecho.Exchange(conn, "before", patience); err != nil {
			t.Fatal(err)
		}
	}
	s.Cut(t, cut)
	if err := lineecho.Exchange(cutConn, "delayed", time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("from the cut namespace: got error %v, want a timeout", err)
	}
	if err := lineecho.Exchange(otherConn, "during", patience); err != nil {
		t.Errorf("from the other namespace: got error %v, want none", err)
	}
	s.Heal(t, cut)
	cutConn.SetDeadline(time.Now().Add(patience))
	if got, err := bufio.NewReader(cutConn).ReadString('\n'); err != nil || got != "delayed\n" { // TCP has sent it again
		t.Errorf("after Heal: got %q and error %v, want the delayed line", got, err)
	}
}

func TestProcessesRunInTheNamespace(t *testing.T) {
	t.Parallel()
	s := NewSwitch(t)
	n := s.Join(t)
	var out []byte
	var err error
	n.Do(t, func() { out, err = exec.Command("ip", "-brief", "addr").Output() })
	if err != nil || !strings.Contains(string(out), n.IP+"/24") {
		t.Errorf("inside: got error %v, want the address %s in:\n%s", err, n.IP, out)
	}
	out, err = exec.Command("ip", "-brief", "addr").Output()
	if err != nil || strings.Contains(string(out), n.IP+"/24") {
		t.Errorf("outside: got error %v, want no address %s in:\n%s", err, n.IP, out)
	}
}

func TestLoopbackIsPrivateToTheNamespace(t *testing.T) {
	t.Parallel()
	s := NewSwitch(t)
	n := s.Join(t)
	var inside net.Listener
	var err error
	n.Do(t, func() { inside, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if conn, err := net.Dial("tcp", inside.Addr().String()); err == nil {
		conn.Close()
		t.Error("dialing the namespace's loopback port from outside: got no error, want one")
	}
}

// TestThreadLeavesTheNamespace ends f like a failed test.
func TestThreadLeavesTheNamespace(t *testing.T) {
	t.Parallel()
	n := NewSwitch(t).Join(t)
	var before, after string
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Do nests
		defer runtime.UnlockOSThread()
		before, _ = os.Readlink(threadNamespace)
		defer func() { after, _ = os.Readlink(threadNamespace) }()
		n.Do(t, runtime.Goexit)
	}()
	<-done
	if before == "" || before != after {
		t.Errorf("got namespace %q after Do, want %q", after, before)
	}
}
