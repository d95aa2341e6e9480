package handler

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// New refuses a configuration that would panic at a request, and names the field.
func TestNewRefusesWhatCannotWork(t *testing.T) {
	g := newRig(t, plainOAuth)
	other, err := oauth.New(oauth.Config{Issuer: "https://login.example.com", ClientID: "other"})
	if err != nil {
		t.Fatal(err)
	}
	withRefresher := func(r keeper.Refresher) *keeper.Keeper {
		c := g.keeper.Config
		c.Refresher = r
		k, err := keeper.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for name, tc := range map[string]struct {
		damage func(*Config)
		want   string
	}{
		"nothing":                    {func(c *Config) { *c = Config{} }, "Client"},
		"no client":                  {func(c *Config) { c.Client = nil }, "Client"},
		"another client":             {func(c *Config) { c.Client = other }, "Client"},
		"a refresher with another":   {func(c *Config) { c.Keeper = withRefresher(Refresher{Client: other}) }, "Client"},
		"a refresher without client": {func(c *Config) { c.Keeper = withRefresher(Refresher{}) }, "Client"},
		"a pointer to one":           {func(c *Config) { c.Keeper = withRefresher(&Refresher{Client: other}) }, "Client"},
		"a pointer to an empty one":  {func(c *Config) { c.Keeper = withRefresher(new(Refresher)) }, "Client"},
		"a nil pointer to one":       {func(c *Config) { c.Keeper = withRefresher((*Refresher)(nil)) }, "Refresher"},
		"another UserInfo":           {func(c *Config) { c.UserInfo = true }, "UserInfo"},
		"no keeper":                  {func(c *Config) { c.Keeper = nil }, "Keeper"},
		"keeper without a vault":     {func(c *Config) { c.Keeper = &keeper.Keeper{Config: g.keeper.Config} }, "Keeper"},
		"keeper of no making":        {func(c *Config) { c.Keeper = new(keeper.Keeper) }, "Keeper"},
		"no origin":                  {func(c *Config) { c.Origin = nil }, "Origin"},
		"age limit without match":    {func(c *Config) { c.RefreshIfOlder = []AgeLimit{{Age: time.Minute}} }, "refresh_if_older"},
		"age limit of a negative age": {func(c *Config) {
			c.RefreshIfOlder = []AgeLimit{{Match: func(*http.Request) bool { return true }, Age: -1}}
		}, "refresh_if_older"},
		"requirement without values": {func(c *Config) { c.Require = []Requirement{{Claim: "groups"}} }, "require"},
		"requirement without claim":  {func(c *Config) { c.Require = []Requirement{{Values: []string{"admin"}}} }, "require"},
		"prefix that is no path":     {func(c *Config) { c.PathPrefix = "oauth2" }, "path_prefix"},
	} {
		c := g.handler.Config
		tc.damage(&c)
		if h, err := New(c); err == nil || h != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one that names %s", name, err, tc.want)
		}
	}
	if _, err := New(g.handler.Config); err != nil {
		t.Errorf("a complete configuration: got error %v, want none", err)
	}
}

// wholeConfig returns a configuration that New accepts before change is applied.
func wholeConfig(t *testing.T, change func(*Config)) Config {
	t.Helper()
	client, err := oauth.New(oauth.Config{Issuer: "https://login.example.com", ClientID: "app"})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New()
	t.Cleanup(func() { _ = store.Close() })
	keeper, err := keeper.New(keeper.Config{
		Vault: keeper.NewVault(store), Site: seal.NewSite(ring, "https://login.example.com", "app", ""), Refresher: Refresher{Client: client},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Client: client, Keeper: keeper, Logger: zap.NewNop(),
		Origin: func(*http.Request) (string, error) { return appOrigin, nil },
	}
	change(&c)
	return c
}
