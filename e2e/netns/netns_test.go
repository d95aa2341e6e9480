package netns

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// serve starts a server in the namespace that sends lines back.
func serve(t *testing.T, n *Namespace) (addr string) {
	t.Helper()
	var listener net.Listener
	var err error
	n.Do(t, func() { listener, err = net.Listen("tcp", n.IP+":0") })
	if err != nil {
		t.Fatal(err)
	}
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
	return listener.Addr().String()
}

func dial(t *testing.T, n *Namespace, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn, err := n.Dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// say sends a line and wants it back within a while.
func say(conn net.Conn, line string, within time.Duration) error {
	conn.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != line+"\n" {
		return errors.New("got " + got)
	}
	return err
}

func TestCutAndHeal(t *testing.T) {
	t.Parallel()
	s := NewSwitch(t)
	cut, spared := s.Join(t), s.Join(t)
	addr := serve(t, &s.Namespace)
	a, b := dial(t, cut, addr), dial(t, spared, addr)
	for _, conn := range []net.Conn{a, b} {
		if err := say(conn, "before", 2*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	s.Cut(t, cut)
	if err := say(a, "delayed", time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with the cable pulled: %v, want nothing", err)
	}
	if err := say(b, "meanwhile", 2*time.Minute); err != nil {
		t.Errorf("beside it: %v", err)
	}
	s.Heal(t, cut)
	a.SetDeadline(time.Now().Add(2 * time.Minute))
	if got, err := bufio.NewReader(a).ReadString('\n'); err != nil || got != "delayed\n" {
		t.Errorf("with the cable back: %q, %v, want what was sent before", got, err)
	}
}

func TestProcessesRunInside(t *testing.T) {
	t.Parallel()
	s := NewSwitch(t)
	n := s.Join(t)
	var out []byte
	var err error
	n.Do(t, func() { out, err = exec.Command("ip", "-brief", "addr").Output() })
	if err != nil || !strings.Contains(string(out), n.IP+"/24") {
		t.Errorf("inside: %v\n%s", err, out)
	}
	out, err = exec.Command("ip", "-brief", "addr").Output()
	if err != nil || strings.Contains(string(out), n.IP+"/24") {
		t.Errorf("outside: %v\n%s", err, out)
	}
}

func TestNamespacesAreApart(t *testing.T) {
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
		t.Error("a loopback port inside is reached from outside")
	}
}

// TestThreadComesBack ends f as a failing test does.
func TestThreadComesBack(t *testing.T) {
	t.Parallel()
	n := NewSwitch(t).Join(t)
	var before, after string
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // Do nests
		defer runtime.UnlockOSThread()
		before, _ = os.Readlink(own)
		defer func() { after, _ = os.Readlink(own) }()
		n.Do(t, runtime.Goexit)
	}()
	<-done
	if before == "" || before != after {
		t.Errorf("the thread was in %q and is in %q", before, after)
	}
}
