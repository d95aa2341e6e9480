package caddymodule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// revokeFlags are the flags of the command revoke.
type revokeFlags struct {
	adminFlags
	id, user, olderThan, site string
	all, yes, json            bool
}

func revokeCommand() *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Ends sessions of a running Caddy, at all instances",
		Long: "Ends sessions at all instances that share their store, with their WebSockets and event streams.\n" +
			"The tokens stay valid at the authorization server until they expire, and the user can log in again:\n" +
			"lock the account there, or end its session there, too. The exit status is 1 if --id or --user finds no session.",
		Example: "  caddy oauth-session revoke --user 248289761001\n  caddy oauth-session revoke --older-than 720h\n  caddy oauth-session revoke --all --yes",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().StringVar(&f.id, "id", "", "The session with this ID, as `caddy oauth-session sessions` lists it")
	cmd.Flags().StringVar(&f.user, "user", "", "All sessions of this user (the claim sub)")
	cmd.Flags().StringVar(&f.olderThan, "older-than", "", "All sessions whose login is at least this long ago, such as 720h or 30d")
	cmd.Flags().BoolVar(&f.all, "all", false, "All sessions")
	cmd.Flags().StringVar(&f.site, "site", "", "Only sessions of this site, as the field site of the log names it")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "Do not ask before --all")
	cmd.Flags().BoolVar(&f.json, "json", false, "Print the answer as JSON")
	cmd.MarkFlagsOneRequired("id", "user", "older-than", "all")
	cmd.MarkFlagsMutuallyExclusive("id", "user", "older-than", "all")
	f.add(cmd)
	return cmd
}

func (f *revokeFlags) query(cmd *cobra.Command) url.Values {
	q := url.Values{}
	for flag, parameter := range map[string]string{"id": "id", "user": "user", "older-than": "older_than", "site": "site"} {
		// An empty value, as of an unset variable in a script, is an error and not "all".
		if cmd.Flags().Changed(flag) {
			q.Set(parameter, cmd.Flag(flag).Value.String())
		}
	}
	if f.all {
		q.Set("older_than", "0s")
	}
	return q
}

func (f *revokeFlags) run(cmd *cobra.Command) error {
	cmd.SilenceUsage = true
	if f.all && !f.yes {
		if err := f.confirm(cmd); err != nil {
			return err
		}
	}
	var answer revocation
	if err := f.request(http.MethodDelete, f.query(cmd), &answer); err != nil {
		return err
	}
	var err error
	if f.json {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d sessions ended\n", answer.Ended)
	}
	if err == nil && answer.Ended == 0 && f.user != "" {
		err = errors.New("no session of a user with this sub: `caddy oauth-session sessions` lists the users in the column USER")
	}
	return err
}

// confirm asks before all sessions end.
func (f *revokeFlags) confirm(cmd *cobra.Command) error {
	of := "all sites"
	if f.site != "" {
		of = "the site " + f.site
	}
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "All users of %s have to log in again. End all sessions? Type yes: ", of)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if strings.TrimSpace(line) != "yes" {
		return errors.Join(errors.New("no session has ended: without a terminal, give --yes"), err)
	}
	return nil
}
