package caddymodule

import (
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "oauth-session",
		Usage: "keygen",
		Short: "Tools for the oauth_session handler",
		Long:  "keygen prints a new key for the option `key` of oauth_session.",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(&cobra.Command{
				Use:   "keygen",
				Short: "Prints a new key for the option key of oauth_session",
				Args:  cobra.NoArgs,
				RunE: func(cmd *cobra.Command, _ []string) error {
					_, err := fmt.Fprintln(cmd.OutOrStdout(), session.NewKey().Encode())
					return err
				},
			})
		},
	})
}
