package faultproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/lineecho"
)

const (
	// patience bounds the wait for bytes that must arrive.
	patience = 2 * time.Minute
	// quiet is the wait for bytes that must not arrive. A shorter wait could only make a test miss a defect.
	quiet = 500 * time.Millisecond
)

// startEcho starts a line echo server and returns its address.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lineecho.Serve(t, listener)
	return listener.Addr().String()
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// wantEcho sends a line and fails the test unless it comes back.
func wantEcho(t *testing.T, conn net.Conn, line string) {
	t.Helper()
	if err := lineecho.Exchange(conn, line, patience); err != nil {
		t.Fatalf("echo of %q: got error %v, want none", line, err)
	}
}

// wantReset fails the test unless the connection is reset.
func wantReset(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading: got error %v, want a reset", err)
	}
}

func TestBytesPassInBothDirections(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	wantEcho(t, conn, "one")
	wantEcho(t, conn, "two")
	conn.(*net.TCPConn).CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after CloseWrite: got error %v, want EOF", err)
	}
	if n := p.Taken(); n != 1 {
		t.Errorf("got %d accepted connections, want 1", n)
	}
}

func TestCutResetsConnections(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	wantEcho(t, conn, "before")
	p.Cut()
	wantReset(t, conn)
	wantEcho(t, dial(t, p), "after")
}

func TestRefuseResetsAndRefusesUntilHeal(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	wantEcho(t, conn, "before")
	p.Refuse()
	wantReset(t, conn)
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing after Refuse: got error %v, want ECONNREFUSED", err)
	}
	p.Heal(t)
	wantEcho(t, dial(t, p), "after")
}

func TestFreezeDropsBytes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		dir  Direction
	}{{"to the server", ToServer}, {"to the client", ToClient}, {"both", Both}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := Start(t, startEcho(t))
			used, unused := dial(t, p), dial(t, p)
			wantEcho(t, used, "before")
			wantEcho(t, unused, "before")
			p.Freeze(tc.dir)
			for _, conn := range []net.Conn{used, dial(t, p)} {
				if err := lineecho.Exchange(conn, "dropped", quiet); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("while frozen: got error %v, want a timeout", err)
				}
			}
			p.Heal(t)
			wantReset(t, used)
			wantEcho(t, unused, "after")
			wantEcho(t, dial(t, p), "after")
		})
	}
}

func TestDelayHoldsBytesBack(t *testing.T) {
	t.Parallel()
	p := Start(t, startEcho(t))
	conn := dial(t, p)
	wantEcho(t, conn, "warm")
	for _, tc := range []struct {
		dir  Direction
		want time.Duration
	}{{ToServer, quiet}, {ToClient, quiet}, {Both, 2 * quiet}} {
		p.Delay(tc.dir, quiet)
		begun := time.Now()
		wantEcho(t, conn, "late")
		if took := time.Since(begun); took < tc.want {
			t.Errorf("direction %v: the echo took %v, want at least %v", tc.dir, took, tc.want)
		}
		p.Heal(t)
	}
}

func TestUnreachableTargetResetsConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	conn, err := net.Dial("tcp", Start(t, listener.Addr().String()).Addr())
	if err == nil { // the reset may arrive during the dial
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got error %v, want a reset", err)
	}
}
