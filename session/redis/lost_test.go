package redis

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// deaf stands before a server and, when told so, loses the next answer and the
// connection with it: the command was run, and nobody knows.
type deaf struct {
	net.Listener
	lose atomic.Bool
	lost atomic.Int32
}

func startDeaf(t *testing.T, server *server) *deaf {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := &deaf{Listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go d.serve(client, server.addr())
		}
	}()
	return d
}

func (d *deaf) serve(client net.Conn, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	answer := make([]byte, 64<<10)
	for {
		n, err := server.Read(answer)
		if err != nil {
			return
		}
		if d.lose.CompareAndSwap(true, false) {
			d.lost.Add(1)
			return
		}
		if _, err := client.Write(answer[:n]); err != nil {
			return
		}
	}
}

// TestLostAnswers: a step whose answer is lost is taken again, and knows its
// own work where it must.
func TestLostAnswers(t *testing.T) {
	server := startServer(t)
	proxy := startDeaf(t, server)
	s := open(t, Config{URLs: []string{"redis://" + proxy.Addr().String()}})
	ctx, id := t.Context(), newID()
	holder := newHolder()
	lose := func(call string, err error, allowed ...error) {
		t.Helper()
		for _, other := range allowed {
			if errors.Is(err, other) {
				return
			}
		}
		if err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
	// The scripts are known, so that each step is one command.
	if err := everything(t, s); err != nil {
		t.Fatal(err)
	}
	proxy.lose.Store(true)
	lose("Create", s.Create(ctx, id, newItem(1, "1")))
	proxy.lose.Store(true)
	lease, err := s.Acquire(ctx, id, 1, holder, session.Lease{})
	lose("Acquire", err)
	if lease.Holder != holder {
		t.Errorf("Acquire: the lease is %v's", lease.Holder)
	}
	proxy.lose.Store(true)
	lose("Beat", s.Beat(ctx, id, session.Lease{Holder: holder, Beat: 1}))
	proxy.lose.Store(true)
	lose("Replace", s.Replace(ctx, id, newItem(2, "2")), session.ErrConflict)
	wantView(t, s, id, "2")
	proxy.lose.Store(true)
	lose("Release", s.Release(ctx, id, holder))
	proxy.lose.Store(true)
	lose("DeleteAt", s.DeleteAt(ctx, id, 2, session.Holder{}), session.ErrConflict)
	_, err = current(t, s, id)
	wantErr(t, "ViewCurrent", err, session.ErrNotFound)
	proxy.lose.Store(true)
	lose("Delete", s.Delete(ctx, id))
	if n := proxy.lost.Load(); n != 7 {
		t.Errorf("%d answers were lost, want 7", n)
	}
}
