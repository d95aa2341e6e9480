package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// listen takes the preferred port on 127.0.0.1, or says that it is taken and takes another one.
func (d demo) listen(name string, preferred int) (net.Listener, error) {
	ln, err := net.Listen("tcp", loopback(preferred))
	if errors.Is(err, syscall.EADDRINUSE) {
		if ln, err = net.Listen("tcp", loopback(0)); err == nil {
			d.sayTaken(name, preferred, port(ln))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", name, err)
	}
	return ln, nil
}

// Ports for another process are taken from below Linux's range for outgoing connections: no such connection can occupy one
// before that process listens.
const (
	firstPort = 20000
	lastPort  = 32000
)

// freePort finds a port that another process is going to listen on.
//
// Nobody may listen on it under [::1] either: a browser could take localhost for that.
func (d demo) freePort(name string, preferred int) (int, error) {
	found, err := probe(preferred)
	for try := 0; errors.Is(err, syscall.EADDRINUSE) && try < 100; try++ {
		if found, err = probe(firstPort + rand.IntN(lastPort-firstPort)); err == nil {
			d.sayTaken(name, preferred, found)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("looking for a port for %s: %w", name, err)
	}
	return found, nil
}

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
	return found, nil // any other error means that there is no IPv6
}

func (d demo) sayTaken(name string, preferred, found int) {
	fmt.Fprintf(d.out, "Port %d is taken: %s uses %d.\n", preferred, name, found)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func port(ln net.Listener) int { return ln.Addr().(*net.TCPAddr).Port }
