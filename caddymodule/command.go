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
		Usage: "check | keygen | key-id | sessions | revoke",
		Short: "Tools for the oauth_session handler",
		Long: "check finds out what will not work with a configuration.\n" +
			"keygen prints a new key for the option `key` of oauth_session.\n" +
			"key-id reads keys from standard input and prints their IDs, which logs contain.\n" +
			"sessions lists the sessions of a running Caddy, and revoke ends them.",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(checkCommand(), keygenCommand(), keyIDCommand(), sessionsCommand(), revokeCommand())
		},
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

// keyFileMax is Caddy's limit for a file in a placeholder, in bytes.
const keyFileMax = 1 << 20

// keyIDCommand prints the IDs of keys, to find the key that a log names. It takes no
// keys as arguments, because lists of processes show arguments.
func keyIDCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key-id",
		Short: "Prints the IDs of keys read from standard input; an ID is not secret",
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
