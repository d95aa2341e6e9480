package redis

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// lossyProxy is a proxy in front of a server. If lose is set, it drops the next answer
// and closes the connection: the server has run the command, and the client cannot know.
type lossyProxy struct {
	net.Listener
	lose atomic.Bool
	lost atomic.Int32
}

func startLossyProxy(t *testing.T, server *server) *lossyProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &lossyProxy{Listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client, server.addr())
		}
	}()
	return p
}

func (p *lossyProxy) serve(client net.Conn, addr string) {
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
		if p.lose.CompareAndSwap(true, false) {
			p.lost.Add(1)
			return
		}
		if _, err := client.Write(answer[:n]); err != nil {
			return
		}
	}
}

// TestLostAnswerIsRetried: after a lost answer, each call is retried. Create and Acquire
// recognize the success of the first try.
func TestLostAnswerIsRetried(t *testing.T) {
	server := startServer(t)
	proxy := startLossyProxy(t, server)
	s := open(t, Config{URLs: []string{"redis://" + proxy.Addr().String()}})
	ctx, id := t.Context(), newID()
	holder := newHolder()
	wantSuccess := func(call string, err error, allowed ...error) {
		t.Helper()
		for _, other := range allowed {
			if errors.Is(err, other) {
				return
			}
		}
		if err != nil {
			t.Errorf("%s: got error %v, want nil or one of %v", call, err, allowed)
		}
	}
	// After this, the server has the scripts, so that each step is one command.
	if err := callAll(t, s); err != nil {
		t.Fatal(err)
	}
	proxy.lose.Store(true)
	wantSuccess("Create", s.Create(ctx, id, newItem(1, "1")))
	proxy.lose.Store(true)
	lease, err := s.Acquire(ctx, id, 1, holder, session.Lease{})
	wantSuccess("Acquire", err)
	if lease.Holder != holder {
		t.Errorf("Acquire: got the lease of %v, want that of %v", lease.Holder, holder)
	}
	proxy.lose.Store(true)
	wantSuccess("Beat", s.Beat(ctx, id, session.Lease{Holder: holder, Beat: 1}))
	proxy.lose.Store(true)
	wantSuccess("Replace", s.Replace(ctx, id, newItem(2, "2")), session.ErrConflict)
	wantView(t, s, id, "2")
	proxy.lose.Store(true)
	wantSuccess("Release", s.Release(ctx, id, holder))
	proxy.lose.Store(true)
	wantSuccess("DeleteAt", s.DeleteAt(ctx, id, 2, session.Holder{}), session.ErrConflict)
	_, err = current(t, s, id)
	wantErr(t, "ViewCurrent", err, session.ErrNotFound)
	proxy.lose.Store(true)
	wantSuccess("Delete", s.Delete(ctx, id))
	if n := proxy.lost.Load(); n != 7 {
		t.Errorf("got %d lost answers, want 7", n)
	}
}
