package faultproxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// quiet is how long a test waits for bytes that must not come. Too short a wait can only make a test miss a defect.
const quiet = 500 * time.Millisecond

// startEcho starts a server that sends lines back, and returns its address.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
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

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return conn
}

// converse sends a line and demands it back.
func converse(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	if err := say(conn, line); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

func say(conn net.Conn, line string) error {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != line+"\n" {
		return errors.New("got " + got)
	}
	return err
}

func TestPassesThrough(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	converse(t, conn, "one")
	converse(t, conn, "two")
	conn.(*net.TCPConn).CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end of what was sent: %v", err)
	}
	if n := p.Taken(); n != 1 {
		t.Errorf("took %d connections, want 1", n)
	}
}

func TestCutResets(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	converse(t, conn, "before")
	p.Cut()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the cut: %v, want a reset", err)
	}
	converse(t, dial(t, p), "after")
}

func TestRefuseAndHeal(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	converse(t, conn, "before")
	p.Refuse()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection of before: %v, want a reset", err)
	}
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, want it refused", err)
	}
	p.Heal(t)
	converse(t, dial(t, p), "after")
}

func TestFreezeSwallows(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		dir  Direction
	}{{"to the server", ToServer}, {"to the client", ToClient}, {"both", Both}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := Start(t, startEcho(t))
			used, unused := dial(t, p), dial(t, p)
			converse(t, used, "before")
			converse(t, unused, "before")
			p.Freeze(tc.dir)
			for _, conn := range []net.Conn{used, dial(t, p)} {
				conn.SetDeadline(time.Now().Add(quiet))
				if err := say(conn, "vanishes"); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("while frozen: %v, want nothing", err)
				}
			}
			p.Heal(t)
			used.SetDeadline(time.Now().Add(2 * time.Minute))
			if _, err := used.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a stream with a hole: %v, want a reset", err)
			}
			converse(t, unused, "after")
			converse(t, dial(t, p), "after")
		})
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	converse(t, conn, "warm")
	for _, tc := range []struct {
		dir  Direction
		want time.Duration
	}{{ToServer, quiet}, {ToClient, quiet}, {Both, 2 * quiet}} {
		p.Delay(tc.dir, quiet)
		begun := time.Now()
		converse(t, conn, "late")
		if took := time.Since(begun); took < tc.want {
			t.Errorf("direction %v: took %v, want %v at least", tc.dir, took, tc.want)
		}
		p.Heal(t)
	}
}

func TestUnreachableTarget(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	conn, err := net.Dial("tcp", Start(t, listener.Addr().String()).Addr())
	if err == nil { // the reset may even be faster than the dial
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}
