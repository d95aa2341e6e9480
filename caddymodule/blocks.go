package caddymodule

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func parseStore(p *parser, usage string) error {
	if !p.NextArg() {
		return p.Errf("which store? Write %s", usage)
	}
	name := p.Val()
	if _, err := caddy.GetModule(storesNamespace + name); err != nil {
		return p.Errf("there is no store '%s': write %s", name, usage)
	}
	module, err := caddyfile.UnmarshalModule(p.Dispenser, storesNamespace+name)
	if err != nil {
		return err
	}
	p.handler.StoreRaw = caddyconfig.JSONModuleObject(module, "store", name, nil)
	return nil
}

func parseCookie(p *parser, usage string) error {
	if p.NextArg() {
		return p.Errf("cookie takes a block: write cookie { name <name> }")
	}
	c := new(Cookie)
	p.handler.Cookie = c
	return parseSubBlock(p.Dispenser, "cookie", map[string]func(value string) error{
		"name":   func(v string) error { c.Name = v; return nil },
		"domain": func(v string) error { c.Domain = v; return nil },
		"same_site": func(v string) error {
			if c.SameSite = v; v != "lax" && v != "strict" && v != "none" {
				return p.Errf("same_site '%s' is unknown: write same_site lax|strict|none", v)
			}
			return nil
		},
		"partitioned": func(v string) error { c.Partitioned = true; return nil },
	}, "partitioned")
}

// parseSubBlock reads lines of a name and a value, or of a name alone for the
// flags. Each line may occur once.
func parseSubBlock(d *caddyfile.Dispenser, of string, lines map[string]func(string) error, flags ...string) error {
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		set, ok := lines[name]
		if !ok {
			return d.Errf("unrecognized subdirective '%s' of %s: %s", name, of, settings(lines))
		}
		if seen[name] {
			return d.Errf("%s %s is already set in this block: write it once", of, name)
		}
		seen[name] = true
		args, want := d.RemainingArgs(), 1
		for _, f := range flags {
			if f == name {
				want = 0
			}
		}
		switch {
		case want == 0 && len(args) != 0:
			return d.Errf("%s %s takes no value: write %s alone", of, name, name)
		case want == 1 && (len(args) != 1 || strings.TrimSpace(args[0]) == ""):
			return d.Errf("%s %s takes one value that is not empty: write %s <value>", of, name, name)
		}
		if err := set(strings.Join(args, "")); err != nil {
			return err
		}
	}
	return nil
}

// settings tells what a block may hold.
func settings(lines map[string]func(string) error) string {
	if len(lines) == 0 {
		return "it has no settings, leave the line out"
	}
	return "write " + strings.Join(slices.Sorted(maps.Keys(lines)), ", ")
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store bolt {
//	    path <file>
//	}
func (s *BoltStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return unmarshalStore(d, map[string]func(string) error{
		"path": func(v string) error { s.Path = v; return nil },
	})
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store memory
func (*MemoryStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return unmarshalStore(d, nil)
}

func unmarshalStore(d *caddyfile.Dispenser, lines map[string]func(string) error) error {
	d.Next()
	name := d.Val()
	if d.NextArg() {
		return d.Errf("store %s takes no further value: its settings go into a block", name)
	}
	return parseSubBlock(d, "store "+name, lines)
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*MemoryStore)(nil)
)
