package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestConfineRestrictsListenerAndAdmin(t *testing.T) {
	got, err := confine([]byte(adapted), "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"srv0":{"listen":["127.0.0.1:1"],"routes":[{"handle":[{"handler":"reverse_proxy",` +
		`"upstreams":[{"dial":"127.0.0.1:8081"}]}]}]}}}}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestConfineRefusesUnknownConfigurations: such a configuration could listen on any address.
func TestConfineRefusesUnknownConfigurations(t *testing.T) {
	for _, tc := range []struct{ name, config, want string }{
		{"no JSON", `{`, "JSON"},
		{"null", `null`, "0 HTTP servers"},
		{"no server", `{}`, "0 HTTP servers"},
		{"two servers", strings.Replace(adapted, `"srv0"`, `"srv1":{},"srv0"`, 1), "2 HTTP servers"},
		{"null server", `{"apps":{"http":{"servers":{"srv0":null}}}}`, "not an object"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := confine([]byte(tc.config), "127.0.0.1:1")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %s and error %v, want an error with %q", got, err, tc.want)
			}
		})
	}
}

func TestTailKeepsTheLastBytes(t *testing.T) {
	got := new(tail)
	for range 100 {
		got.Write(bytes.Repeat([]byte("x"), tailSize/10))
	}
	got.Write([]byte("the end"))
	if len(got.kept) != tailSize || !strings.HasSuffix(got.String(), "x"+"the end") {
		t.Errorf("got %d bytes that end in %q, want %d bytes that end in %q", len(got.kept), got.kept[len(got.kept)-10:], tailSize, "the end")
	}
}
