// Package faultproxy is a TCP proxy that does to connections what networks do: it delays them, cuts them, lets their bytes
// vanish, or takes no more of them.
package faultproxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

// A Direction is one way through the proxy, or both.
type Direction int

// The directions.
const (
	ToServer Direction = 1 << iota
	ToClient
	Both = ToServer | ToClient
)

// dialLimit bounds connecting to the target.
const dialLimit = 60 * time.Second

// A Proxy passes connections on to its target. Its methods may be used at any time by many goroutines.
type Proxy struct {
	addr    string // where it listens, also again after Refuse
	target  string
	running sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	closed   bool
	links    map[*link]struct{}
	delay    [2]time.Duration // by pump
	frozen   [2]bool
	taken    int
}

// A link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn // the server is nil until it is connected
	holed          bool         // bytes of it have vanished
}

// The pumps of a link.
const (
	toServer = iota
	toClient
)

// Start starts a proxy to the target on a free loopback port. It ends with the test.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{addr: fmt.Sprintf("127.0.0.1:%d", proc.FreePort(t)), target: target, links: map[*link]struct{}{}}
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// Addr returns the proxy's host and port.
func (p *Proxy) Addr() string { return p.addr }

// Taken counts the connections that the proxy has accepted so far.
func (p *Proxy) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Delay holds back what goes in the given directions, by d to 2d, from now on. Zero ends that.
func (p *Proxy) Delay(dir Direction, d time.Duration) {
	p.set(dir, func(pump int) { p.delay[pump] = d })
}

// Freeze lets everything vanish that goes in the given directions. Connections stay open and new ones are accepted, so that
// nobody is told; it is as if the other side had died without a word.
func (p *Proxy) Freeze(dir Direction) {
	p.set(dir, func(pump int) { p.frozen[pump] = true })
}

func (p *Proxy) set(dir Direction, f func(pump int)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pump, d := range []Direction{toServer: ToServer, toClient: ToClient} {
		if dir&d != 0 {
			f(pump)
		}
	}
}

// Cut resets all connections. New ones are taken.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset(func(*link) bool { return true })
}

// Refuse resets all connections and refuses new ones, until Heal.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse()
}

// Heal ends all faults. A connection of which bytes have vanished is reset: a stream with a hole in it cannot go on.
func (p *Proxy) Heal(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	p.delay, p.frozen = [2]time.Duration{}, [2]bool{}
	p.reset(func(l *link) bool { return l.holed })
	refusing := p.listener == nil
	p.mu.Unlock()
	if refusing {
		if err := p.listen(); err != nil {
			t.Fatal(err)
		}
	}
}

// reset needs p.mu.
func (p *Proxy) reset(which func(*link) bool) {
	for l := range p.links {
		if !which(l) {
			continue
		}
		delete(p.links, l)
		l.client.SetLinger(0) // closing then sends RST
		l.client.Close()
		if l.server != nil {
			l.server.SetLinger(0)
			l.server.Close()
		}
	}
}

// refuse needs p.mu.
func (p *Proxy) refuse() {
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	p.reset(func(*link) bool { return true })
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.refuse()
	p.mu.Unlock()
	p.running.Wait()
}

func (p *Proxy) listen() error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = listener
	p.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			p.running.Go(func() { p.serve(listener, conn.(*net.TCPConn)) })
		}
	})
	return nil
}

// serve connects a client with the target and pumps until either side is done.
func (p *Proxy) serve(from net.Listener, client *net.TCPConn) {
	defer client.Close()
	l := &link{client: client}
	p.mu.Lock()
	if p.closed || p.listener != from { // taken just before Refuse
		p.mu.Unlock()
		client.SetLinger(0)
		return
	}
	p.taken++
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	}()
	conn, err := net.DialTimeout("tcp", p.target, dialLimit)
	if err != nil {
		client.SetLinger(0)
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	p.mu.Lock()
	_, there := p.links[l]
	l.server = server
	p.mu.Unlock()
	if !there { // reset meanwhile
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, toServer, client, server) })
	pumps.Go(func() { p.pump(l, toClient, server, client) })
	pumps.Wait()
}

// pump copies one direction until it ends, and then tells the other side so.
func (p *Proxy) pump(l *link, pump int, from, to *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.pass(l, pump) {
			if _, err := to.Write(buf[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			to.CloseWrite()
		} else {
			from.Close()
			to.Close()
		}
		return
	}
}

// pass waits as long as bytes are held back, and reports whether they arrive.
func (p *Proxy) pass(l *link, pump int) bool {
	p.mu.Lock()
	delay := p.delay[pump]
	p.mu.Unlock()
	time.Sleep(delay)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen[pump] {
		l.holed = true
	}
	return !l.holed
}
