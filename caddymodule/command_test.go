package caddymodule

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func runCommand(cmd *cobra.Command, input string) (string, error) {
	var out bytes.Buffer
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(nil)
	err := cmd.Execute()
	return out.String(), err
}

func TestKeygenPrintsNewValidKey(t *testing.T) {
	first, err := runCommand(keygenCommand(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 44 || !strings.HasSuffix(first, "\n") {
		t.Errorf("got %d bytes, want 43 characters and a newline", len(first))
	}
	if _, err := seal.ParseKey(first); err != nil {
		t.Error(err)
	}
	if second, _ := runCommand(keygenCommand(), ""); second == first {
		t.Error("got the same key twice")
	}
}

func TestKeyIDPrintsIDsButNoKeys(t *testing.T) {
	out, err := runCommand(keyIDCommand(), encodeKeys(keyB, keyA))
	if err != nil {
		t.Fatal(err)
	}
	if want := keyB.ID() + "\n" + keyA.ID() + "\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	for _, input := range []string{"", "\n", keyA.Encode()[:42], encodeKeys(keyA, keyA)} {
		out, err := runCommand(keyIDCommand(), input)
		if err == nil {
			t.Errorf("%.10q…: got no error", input)
		}
		if strings.Contains(out, keyA.Encode()[:42]) {
			t.Errorf("got a key in the output: %s", out)
		}
	}
}
