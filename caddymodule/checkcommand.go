package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// Exit codes of the command check. 1 means that the configuration cannot be loaded.
const exitFindings = 2

// checkTimeout bounds the checks of all sites.
const checkTimeout = time.Minute

// checkFlags are the flags of the command check.
type checkFlags struct {
	config, adapter string
	json            bool
}

func checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Finds out what will not work: authorization server, client, session store",
		Long: "Loads a configuration without starting it, and tries what logins need: metadata, keys and clock of the\n" +
			"authorization server, the client's credentials and redirect URI, and the session store.\n" +
			"It sends one authorization request and one code that no login has to each authorization server, and writes\n" +
			"one item to each shared store. The exit code is 0 if logins should work, 1 if the configuration cannot be\n" +
			"loaded, and 2 if something will not work. Warnings do not change it.",
		Example: "  caddy oauth-session check\n  caddy oauth-session check --config /etc/caddy/Caddyfile --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage, cmd.SilenceErrors = true, true
			return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return f.run(cmd) })(cmd, args)
		},
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "The configuration file; by default the Caddyfile here")
	cmd.Flags().StringVarP(&f.adapter, "adapter", "a", "", "The adapter of the configuration file")
	cmd.Flags().BoolVar(&f.json, "json", false, "Print one JSON object")
	return cmd
}

func (f *checkFlags) run(cmd *cobra.Command) (int, error) {
	text, file, adapter, err := caddycmd.LoadConfig(f.config, f.adapter)
	if err != nil {
		return 1, fmt.Errorf("loading the configuration: %w", err)
	}
	lines := map[string][]int{}
	if source, err := os.ReadFile(file); err == nil && (adapter == "caddyfile" || strings.HasPrefix(strings.ToLower(file), "caddyfile")) {
		lines = optionLines(file, source)
	}
	report, err := checkConfig(cmd.Context(), text)
	if err != nil {
		return 1, fmt.Errorf("the configuration does not load: %w", err)
	}
	report.locate(file, lines)
	if f.json {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(report)
	} else {
		err = report.print(cmd.OutOrStdout())
	}
	switch {
	case err != nil:
		return 1, fmt.Errorf("printing the report: %w", err)
	case !report.OK:
		return exitFindings, nil
	}
	return 0, nil
}

// checkConfig provisions a configuration, as `caddy validate` does, checks its sites, and
// takes it down again.
func checkConfig(ctx context.Context, text []byte) (report checkReport, err error) {
	var config *caddy.Config
	if err := caddy.StrictUnmarshalJSON(text, &config); err != nil {
		return report, err
	}
	// The process is a command: nothing may listen, and nothing is logged but errors.
	config.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "ERROR"}}}}
	provisioned, err := caddy.ProvisionContext(config)
	if err != nil {
		return report, err
	}
	defer closeCheckedStores()
	_ = provisioned
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	sites := servedSites.current()
	if len(sites) == 0 {
		return report, errors.New("it has no oauth_session directive")
	}
	report.OK = true
	for _, s := range sites {
		checked := s.check(ctx)
		report.Sites = append(report.Sites, checked)
		report.OK = report.OK && !slices.ContainsFunc(checked.Findings, func(f reportedFinding) bool { return f.Severity == severityError })
	}
	return report, nil
}

// closeCheckedStores closes the stores, so that files are complete.
func closeCheckedStores() {
	pool.Range(func(_, value any) bool {
		if v, ok := value.(*pooledVault); ok {
			_ = v.store.close()
		}
		return true
	})
}

// check returns what is found about a site.
func (s *servedSite) check(ctx context.Context) checkedSite {
	origin := s.origins[0]
	metadata := s.handler.ClientMetadata(origin)
	checked := checkedSite{Site: s.label, Issuer: s.use.authority, ClientID: s.use.client, RedirectURIs: s.redirectURIs(), Store: storeName(s.use.store), Findings: []reportedFinding{}}
	found := s.storeFindings(ctx)
	if s.app.isCallbackUnrouted(s.use) {
		found = append(found, finding{code: findingCallback, option: "path_prefix", err: errCallbackUnrouted})
	}
	server := serverFindings(ctx, s.client)
	found = append(found, server...)
	if failure(server) == nil {
		for _, p := range s.client.Probe(ctx, metadata.RedirectURIs[0]) {
			found = append(found, finding{code: p.Code, option: p.Option, err: p.Err, warning: p.Warning})
		}
	}
	for _, f := range found {
		checked.add(f)
	}
	return checked
}

// storeChecker is implemented by a store module that can be checked without opening it: a
// file that a running Caddy uses.
type storeChecker interface{ CheckStore() error }

func (s *servedSite) storeFindings(ctx context.Context) []finding {
	if module, ok := s.module.(storeChecker); ok {
		if err := module.CheckStore(); err != nil {
			return []finding{{code: findingStore, option: "store", err: err}}
		}
		return nil
	}
	return s.vault.findings(ctx)
}

// redirectURIs returns the callback at each origin of the site.
func (s *servedSite) redirectURIs() (uris []string) {
	for _, origin := range s.origins {
		uris = append(uris, s.handler.ClientMetadata(origin).RedirectURIs...)
	}
	return uris
}
