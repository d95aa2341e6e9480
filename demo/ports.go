package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// listen listens on the preferred port of 127.0.0.1. If the port is in use, it prints that and listens on another one.
func (d demo) listen(name string, preferred int) (net.Listener, error) {
	ln, err := net.Listen("tcp", loopback(preferred))
	if errors.Is(err, syscall.EADDRINUSE) {
		if ln, err = net.Listen("tcp", loopback(0)); err == nil {
			d.reportPort(name, preferred, port(ln))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", name, err)
	}
	return ln, nil
}

// The ports for other processes lie below Linux's range for outgoing connections, so no outgoing connection can occupy one
// before the process listens.
const (
	firstPort = 20000
	lastPort  = 32000
)

// freePort returns a free port for another process, the preferred one if possible.
//
// The port must be free on [::1], too: a browser could resolve localhost to that address.
func (d demo) freePort(name string, preferred int) (int, error) {
	found, err := probe(preferred)
	for try := 0; errors.Is(err, syscall.EADDRINUSE) && try < 100; try++ {
		if found, err = probe(firstPort + rand.IntN(lastPort-firstPort)); err == nil {
			d.reportPort(name, preferred, found)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("finding a port for %s: %w", name, err)
	}
	return found, nil
}

// probe checks that a port is free on 127.0.0.1 and [::1]. It returns the port, or a free one if wanted is 0.
func probe(wanted int) (int, error) {
	ln, err := net.Listen("tcp", loopback(wanted))
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	found := port(ln)
	other, err := net.Listen("tcp", net.JoinHostPort("::1", strconv.Itoa(found)))
	switch {
	case err == nil:
		other.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return 0, err
	}
	return found, nil // any other error means that the machine has no IPv6
}

func (d demo) reportPort(name string, preferred, found int) {
	fmt.Fprintf(d.out, "Port %d is in use: %s uses %d.\n", preferred, name, found)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func port(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }
