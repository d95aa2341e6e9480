package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// findCaddy returns the path of Caddy. It builds Caddy in the checkout unless d.caddy is set.
func (d demo) findCaddy(ctx context.Context, dir string) (string, error) {
	if d.caddy != "" {
		return d.caddy, nil
	}
	checkout, err := filepath.Abs(d.checkout)
	if err != nil {
		return "", fmt.Errorf("finding the checkout: %w", err)
	}
	caddy := filepath.Join(checkout, "caddy")
	fmt.Fprintln(d.out, "Building Caddy with this module. The first build takes some minutes.")
	build := command(ctx, filepath.Join(checkout, "xcaddy.build"))
	build.Env = append(os.Environ(), "OUTPUT="+caddy, "TMPDIR="+dir)
	output := new(tail)
	build.Stdout, build.Stderr = output, output
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, output)
	}
	return caddy, nil
}

// proxy is Caddy with its configuration.
type proxy struct {
	caddy  string
	config string // JSON file
	env    []string
}

// configure adapts the Caddyfile to a configuration with the addresses of s. Caddy stores all of its data in dir.
func configure(ctx context.Context, caddy, caddyfile, dir string, s addresses) (proxy, error) {
	p := proxy{
		caddy:  caddy,
		config: filepath.Join(dir, "caddy.json"),
		env: append(os.Environ(),
			"SITE="+s.site, "APP="+s.app, "ISSUER="+s.issuer, "CLIENT_ID="+clientID, "CLIENT_SECRET="+s.clientSecret,
			"XDG_DATA_HOME="+filepath.Join(dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"),
		),
	}
	warnings := new(tail)
	adapt := command(ctx, caddy, "adapt", "--config", caddyfile, "--adapter", "caddyfile")
	adapt.Env, adapt.Stderr = p.env, warnings
	text, err := adapt.Output()
	if err != nil {
		return proxy{}, fmt.Errorf("reading %s: %w\n%s", caddyfile, err, warnings)
	}
	text, err = confine(text, s.listen)
	if err != nil {
		return proxy{}, fmt.Errorf("reading %s: %w", caddyfile, err)
	}
	if err := os.WriteFile(p.config, text, 0o600); err != nil {
		return proxy{}, fmt.Errorf("writing Caddy's configuration: %w", err)
	}
	return p, nil
}

// confine restricts an ordinary configuration to the demo: the site listens on 127.0.0.1 only, and Caddy's admin endpoint
// is off, since another Caddy may use its default port.
func confine(text []byte, listen string) ([]byte, error) {
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	servers := members(config, "apps", "http", "servers")
	if len(servers) != 1 {
		return nil, fmt.Errorf("got %d HTTP servers, want 1", len(servers))
	}
	for name := range servers {
		server := members(servers, name)
		if server == nil {
			return nil, errors.New("the HTTP server is not an object")
		}
		server["listen"] = []string{listen}
	}
	config["admin"] = map[string]any{"disabled": true}
	return json.Marshal(config)
}

// members returns the object at a path of nested objects, or nil.
func members(object map[string]any, path ...string) map[string]any {
	for _, name := range path {
		object, _ = object[name].(map[string]any)
	}
	return object
}

// run runs Caddy as a part of the demo.
func (p proxy) run(ctx context.Context) error {
	cmd := command(ctx, p.caddy, "run", "--config", p.config)
	output := new(tail)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, output, output
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("caddy ended unexpectedly: %w\n%s", err, output)
}
