package caddymodule

import (
	"cmp"
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
	var partitioned error // with the line of the option
	err := parseSubBlock(p.Dispenser, "cookie", map[string]setting{
		"name":   word(&c.Name),
		"domain": word(&c.Domain),
		"same_site": {values: 1, set: func(v []string) error {
			if c.SameSite = v[0]; c.SameSite != "lax" && c.SameSite != "strict" && c.SameSite != "none" {
				return p.Errf("same_site '%s' is unknown: write same_site lax|strict|none", c.SameSite)
			}
			return nil
		}},
		"partitioned": {set: func([]string) error {
			c.Partitioned = true
			partitioned = p.Errf("cookie partitioned needs same_site none, because browsers send no other cookie in a frame of another site: write both, each on its own line, or neither")
			return nil
		}},
	})
	if c.SameSite == "none" {
		partitioned = nil
	}
	return cmp.Or(err, partitioned)
}

// setting is one line of a sub-block.
type setting struct {
	values int // the number of values, or several
	set    func(values []string) error
}

// several means one value or more.
const several = -1

func word(to *string) setting {
	return setting{values: 1, set: func(v []string) error { *to = v[0]; return nil }}
}

func list(to *[]string) setting {
	return setting{values: several, set: func(v []string) error { *to = v; return nil }}
}

// parseSubBlock parses lines with a name and values. Each name may occur once.
func parseSubBlock(d *caddyfile.Dispenser, of string, lines map[string]setting) error {
	seen := map[string]bool{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		line, ok := lines[name]
		if !ok {
			return d.Errf("unrecognized subdirective '%s' of %s: %s", name, of, settings(lines))
		}
		if seen[name] {
			return d.Errf("%s %s is already set in this block: write it once", of, name)
		}
		seen[name] = true
		values := d.RemainingArgs()
		empty := slices.ContainsFunc(values, func(v string) bool { return strings.TrimSpace(v) == "" })
		switch {
		case line.values == 0 && len(values) != 0:
			return d.Errf("%s %s takes no value: write %s alone", of, name, name)
		case line.values == 1 && (len(values) != 1 || empty):
			return d.Errf("%s %s takes one value that is not empty: write %s <value>", of, name, name)
		case line.values == several && (len(values) == 0 || empty):
			return d.Errf("%s %s takes one value or more, none of them empty: write %s <value...>", of, name, name)
		case line.values > 1 && (len(values) != line.values || empty):
			return d.Errf("%s %s takes %d values, none of them empty: write %s%s", of, name, line.values, name, strings.Repeat(" <value>", line.values))
		}
		if err := line.set(values); err != nil {
			return err
		}
	}
	return nil
}

// settings returns a hint with the names that a block may have.
func settings(lines map[string]setting) string {
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
	return unmarshalStore(d, map[string]setting{"path": word(&s.Path)})
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store memory
func (*MemoryStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return unmarshalStore(d, nil)
}

func unmarshalStore(d *caddyfile.Dispenser, lines map[string]setting) error {
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
