package caddymodule

import (
	"fmt"
	"io"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "oauth-session",
		Usage: "keygen | key-id",
		Short: "Tools for the oauth_session handler",
		Long: "keygen prints a new key for the option `key` of oauth_session.\n" +
			"key-id reads keys from standard input and prints the names that logs call them by.",
		CobraFunc: func(cmd *cobra.Command) { cmd.AddCommand(keygenCommand(), keyIDCommand()) },
	})
}

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen",
		Short: "Prints a new key for the option key of oauth_session",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), seal.NewKey().Encode())
			return err
		},
	}
}

// keyFileMax is what Caddy reads of a file behind a placeholder.
const keyFileMax = 1 << 20

// keyIDCommand tells which key of a file a log speaks of. It takes no keys as
// arguments: those show in lists of processes.
func keyIDCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key-id",
		Short: "Prints the names of keys read from standard input, which are no secret",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), keyFileMax))
			if err != nil {
				return fmt.Errorf("reading keys: %w", err)
			}
			ring, err := parseKeys([]string{string(text)})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(ring.IDs(), "\n"))
			return err
		},
	}
}
