// Package faultproxy is a TCP proxy that simulates network faults: it delays, resets or refuses connections, or drops
// their bytes.
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

// A Proxy forwards connections to its target. Its methods are safe for concurrent use.
type Proxy struct {
	addr    string // where it listens, with interruptions by Refuse
	target  string
	running sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	closed   bool
	links    map[*link]struct{}
	delay    [2]time.Duration // by pump
	frozen   [2]bool          // by pump
	accepted int
}

// A link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn // server is nil until the proxy has connected
	incomplete     bool         // the proxy has dropped bytes
}

// The pumps of a link, one per direction.
const (
	toServer = iota
	toClient
)

// Start runs a proxy to the target on a free loopback port until the test ends.
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

// Taken counts the accepted connections.
func (p *Proxy) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Delay delays bytes in the given directions by d to 2d from now on. Zero removes the delay.
func (p *Proxy) Delay(dir Direction, d time.Duration) {
	p.set(dir, func(pump int) { p.delay[pump] = d })
}

// Freeze drops all bytes in the given directions. Connections stay open and the proxy accepts new ones, as if the other
// side had died without closing them.
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

// Cut resets all connections. The proxy still accepts new ones.
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

// Heal ends all faults. It resets the connections with dropped bytes, since an incomplete stream cannot continue.
func (p *Proxy) Heal(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	p.delay, p.frozen = [2]time.Duration{}, [2]bool{}
	p.reset(func(l *link) bool { return l.incomplete })
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
				return // the listener is closed
			}
			p.running.Go(func() { p.serve(listener, conn.(*net.TCPConn)) })
		}
	})
	return nil
}

// serve connects a client with the target and copies bytes until both sides have ended.
func (p *Proxy) serve(from net.Listener, client *net.TCPConn) {
	defer client.Close()
	l := &link{client: client}
	p.mu.Lock()
	if p.closed || p.listener != from { // accepted just before Refuse
		p.mu.Unlock()
		client.SetLinger(0)
		return
	}
	p.accepted++
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
	_, connected := p.links[l]
	l.server = server
	p.mu.Unlock()
	if !connected { // reset has removed the link
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, toServer, client, server) })
	pumps.Go(func() { p.pump(l, toClient, server, client) })
	pumps.Wait()
}

// pump copies one direction until it ends, then closes the other side.
func (p *Proxy) pump(l *link, pump int, from, to *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.delayOrDrop(l, pump) {
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

// delayOrDrop waits for the pump's delay and reports whether to forward the bytes.
func (p *Proxy) delayOrDrop(l *link, pump int) (forward bool) {
	p.mu.Lock()
	delay := p.delay[pump]
	p.mu.Unlock()
	time.Sleep(delay)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen[pump] {
		l.incomplete = true
	}
	return !l.incomplete
}
