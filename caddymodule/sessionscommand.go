package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// adminFlags find the admin endpoint of the running Caddy, as those of `caddy reload` do.
type adminFlags struct{ address, config, adapter string }

func (a *adminFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.address, "address", "", "The address of the admin endpoint, if it is not that of the configuration")
	cmd.Flags().StringVarP(&a.config, "config", "c", "", "The configuration file that names the address of the admin endpoint")
	cmd.Flags().StringVarP(&a.adapter, "adapter", "a", "", "The adapter of the configuration file")
}

// request sends a request to the admin endpoint and decodes the answer.
func (a *adminFlags) request(method string, query url.Values, answer any) error {
	address, err := caddycmd.DetermineAdminAPIAddress(a.address, nil, a.config, a.adapter)
	if err != nil {
		return fmt.Errorf("finding the admin endpoint: %w", err)
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, "/oauth_session/sessions?"+query.Encode(), nil, nil)
	if err != nil {
		return fmt.Errorf("asking the admin endpoint %s: %w", address, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("reading the answer of the admin endpoint %s: %w", address, err)
	}
	return nil
}

// sessionsFlags are the flags of the command sessions.
type sessionsFlags struct {
	adminFlags
	user, site, cursor string
	limit              int
	count, json        bool
}

func sessionsCommand() *cobra.Command {
	var f sessionsFlags
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "Lists the sessions of a running Caddy",
		Long: "Lists the sessions of a running Caddy: user, name, login, last use and browser.\n" +
			"The ID in the first column is the argument of `caddy oauth-session revoke --id`.",
		Example: "  caddy oauth-session sessions --user 248289761001\n  caddy oauth-session sessions --limit 0 --json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().StringVar(&f.user, "user", "", "Only the sessions of this user (the claim sub)")
	cmd.Flags().StringVar(&f.site, "site", "", "Only the sessions of this site, as the field site of the log names it")
	cmd.Flags().IntVar(&f.limit, "limit", defaultSessionPage, "The number of sessions to list; 0 lists all")
	cmd.Flags().StringVar(&f.cursor, "cursor", "", "Continue a list: the cursor that the list before has printed")
	cmd.Flags().BoolVar(&f.count, "count", false, "Print the number of sessions only")
	cmd.Flags().BoolVar(&f.json, "json", false, "Print one JSON object a line")
	f.add(cmd)
	return cmd
}

func (f *sessionsFlags) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"user": f.user, "site": f.site, "cursor": f.cursor} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

func (f *sessionsFlags) run(cmd *cobra.Command) error {
	cmd.SilenceUsage = true
	if f.limit < 0 {
		return errors.New("--limit must not be negative")
	}
	if f.count {
		return f.printCount(cmd)
	}
	write, flush := f.printer(cmd.OutOrStdout())
	q := f.query()
	for left := f.limit; ; {
		q.Set("limit", strconv.Itoa(cmp.Or(min(left, maxSessionPage), maxSessionPage)))
		var page sessionPage
		if err := f.request(http.MethodGet, q, &page); err != nil {
			return err
		}
		for i := range page.Sessions {
			if err := write(&page.Sessions[i]); err != nil {
				return fmt.Errorf("printing sessions: %w", err)
			}
		}
		left -= len(page.Sessions)
		if page.Next == "" || f.limit > 0 && left <= 0 {
			if err := flush(); err != nil {
				return fmt.Errorf("printing sessions: %w", err)
			}
			if page.Next != "" {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "there may be more sessions: add --cursor %s\n", page.Next)
			}
			return nil
		}
		q.Set("cursor", page.Next)
	}
}

func (f *sessionsFlags) printCount(cmd *cobra.Command) error {
	q := f.query()
	q.Set("count", "true")
	var count sessionCount
	if err := f.request(http.MethodGet, q, &count); err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(count)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), count.Count)
	return err
}

// printer returns a function that prints one session, and one that ends the list.
func (f *sessionsFlags) printer(out io.Writer) (write func(*shownSession) error, flush func() error) {
	if f.json {
		encoder := json.NewEncoder(out)
		return func(s *shownSession) error { return encoder.Encode(s) }, func() error { return nil }
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SESSION\tUSER\tNAME\tLOGIN\tLAST USE\tSITE\tBROWSER")
	return func(s *shownSession) error {
		browser := s.UserAgent
		if s.Label != "" {
			browser = "label " + s.Label + ": " + s.Detail
		}
		var cells []string
		for _, cell := range []string{s.ID, s.User, s.Name, shortTime(s.CreatedAt), shortTime(s.LastUsedAt), s.Site, browser} {
			cells = append(cells, cmp.Or(printableCell(cell), "-"))
		}
		_, err := fmt.Fprintln(table, strings.Join(cells, "\t"))
		return err
	}, table.Flush
}

func shortTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format("2006-01-02 15:04:05Z")
}

// printableCell replaces characters that could control the terminal or forge a row: users
// choose their names, and clients their User-Agent.
func printableCell(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
