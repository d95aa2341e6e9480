package keeper

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// TestNewNamesTheInvalidField: an invalid Config is an error that names the field, rather
// than a panic at the first request.
func TestNewNamesTheInvalidField(t *testing.T) {
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		damage func(*Config)
		want   string
	}{
		"no vault":                 {func(c *Config) { c.Vault = nil }, "Vault"},
		"vault without store":      {func(c *Config) { c.Vault = NewVault(nil) }, "Vault"},
		"zero vault":               {func(c *Config) { c.Vault = new(Vault) }, "Vault"},
		"no site":                  {func(c *Config) { c.Site = nil }, "Site"},
		"site without keys":        {func(c *Config) { c.Site = seal.NewSite(nil, "issuer", "client", "") }, "Site"},
		"site with an empty ring":  {func(c *Config) { c.Site = seal.NewSite(new(seal.KeyRing), "issuer", "client", "") }, "Site"},
		"zero site":                {func(c *Config) { c.Site = new(seal.Site) }, "Site"},
		"no refresher":             {func(c *Config) { c.Refresher = nil }, "Refresher"},
		"negative idle time":       {func(c *Config) { c.IdleTimeout = -1 }, "IdleTimeout"},
		"negative lifetime":        {func(c *Config) { c.MaxLifetime = -time.Hour }, "MaxLifetime"},
		"negative refresh timeout": {func(c *Config) { c.RefreshTimeout = -1 }, "RefreshTimeout"},
		"negative token life":      {func(c *Config) { c.DefaultTokenLifetime = -1 }, "DefaultTokenLifetime"},
		"nothing":                  {func(c *Config) { *c = Config{} }, "Vault"},
	} {
		c := Config{Vault: NewVault(newFakeStore()), Site: seal.NewSite(ring, "issuer", "client", ""), Refresher: noServer{}}
		tc.damage(&c)
		if k, err := New(c); err == nil || k != nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got keeper %v and error %v, want an error that names %s", name, k, err, tc.want)
		}
	}
}

// TestZeroDurationsMeanTheDefaults: a keeper with default durations serves a session.
func TestZeroDurationsMeanTheDefaults(t *testing.T) {
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	vault := NewVault(newFakeStore())
	k, err := New(Config{Vault: vault, Site: seal.NewSite(ring, "issuer", "client", ""), Refresher: noServer{}})
	if err != nil {
		t.Fatal(err)
	}
	got := []time.Duration{k.IdleTimeout, k.MaxLifetime, k.RefreshTimeout, k.DefaultTokenLifetime}
	if want := []time.Duration{8 * time.Hour, 24 * time.Hour, 10 * time.Second, 5 * time.Minute}; !reflect.DeepEqual(got, want) {
		t.Errorf("got durations %v, want %v", got, want)
	}
	secret, _, err := k.Create(t.Context(), Identity{Subject: "u"}, Tokens{AccessToken: "at", RefreshToken: "rt"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Fresh(t.Context(), secret); err != nil {
		t.Errorf("Fresh of a new session: %v", err)
	}
}

// TestSiteWithoutKeysSealsAndOpensNothing, until SetKeys gives it keys.
func TestSiteWithoutKeysSealsAndOpensNothing(t *testing.T) {
	site := seal.NewSite(nil, "issuer", "client", "")
	if _, err := site.SealForBrowser("cookie", []byte("x")); err == nil {
		t.Error("a site without keys has sealed a value")
	}
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	value, err := seal.NewSite(ring, "issuer", "client", "").SealForBrowser("cookie", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := site.OpenFromBrowser("cookie", value); ok {
		t.Error("a site without keys has opened a value")
	}
	site.SetKeys(ring)
	if plain, ok := site.OpenFromBrowser("cookie", value); !ok || string(plain) != "x" {
		t.Errorf("after SetKeys: got %q, %v, want \"x\", true", plain, ok)
	}
}
