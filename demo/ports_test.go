package main

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
)

// occupy listens on a port and returns it.
func occupy(t *testing.T, host string) int {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		if host == "::1" {
			t.Skip("the machine has no IPv6")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return port(ln)
}

func TestPortInUseIsReplaced(t *testing.T) {
	for _, tc := range []struct {
		name, occupied string
		find           func(d demo, preferred int) (int, error)
	}{
		{"to listen on", "127.0.0.1", func(d demo, preferred int) (int, error) {
			ln, err := d.listen("the part", preferred)
			if err != nil {
				return 0, err
			}
			defer ln.Close()
			return port(ln), nil
		}},
		{"for another process", "127.0.0.1", func(d demo, preferred int) (int, error) { return d.freePort("the part", preferred) }},
		{"in use on IPv6 only", "::1", func(d demo, preferred int) (int, error) { return d.freePort("the part", preferred) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			preferred := occupy(t, tc.occupied)
			got, err := tc.find(demo{out: &out}, preferred)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("Port %d is in use: the part uses %d.\n", preferred, got)
			if got == preferred || out.String() != want {
				t.Errorf("got port %d in place of %d and output %q, want %q", got, preferred, out.String(), want)
			}
		})
	}
}

func TestPreferredPortIsUsedIfFree(t *testing.T) {
	var out bytes.Buffer
	d := demo{out: &out}
	// Another process may take the port first, but hardly ten times.
	for range 10 {
		ln, err := net.Listen("tcp", loopback(0))
		if err != nil {
			t.Fatal(err)
		}
		preferred := port(ln)
		ln.Close()
		out.Reset()
		site, err := d.freePort("the site", preferred)
		if err != nil {
			t.Fatal(err)
		}
		app, err := d.listen("the app", preferred)
		if err != nil {
			t.Fatal(err)
		}
		app.Close()
		if site == preferred && app.Addr().String() == loopback(preferred) && out.Len() == 0 {
			return
		}
	}
	t.Errorf("ten times, the demo did not use the free preferred port; last output %q", out.String())
}

func TestPortErrorNamesThePart(t *testing.T) {
	const impossible = 1 << 16
	d := demo{out: new(bytes.Buffer)}
	if _, err := d.freePort("the site", impossible); err == nil || !strings.Contains(err.Error(), "the site") {
		t.Errorf("freePort: got error %v, want one that names the site", err)
	}
	if _, err := d.listen("the app", impossible); err == nil || !strings.Contains(err.Error(), "the app") {
		t.Errorf("listen: got error %v, want one that names the app", err)
	}
}
