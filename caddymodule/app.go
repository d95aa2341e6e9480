package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
)

const appName = "oauth_session"

func init() {
	caddy.RegisterModule(App{})
}

// App opens the stores of all oauth_session handlers when a configuration
// starts, so that one that cannot be used is found then and not by the first
// visitor. It has no settings, and is there whenever a handler is.
//
// Handlers do not open stores themselves when they are provisioned: `caddy
// validate` provisions too, and must not get in the way of a Caddy at work.
type App struct {
	stores map[string]*lazyStore
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// use notes a store of this configuration.
func (a *App) use(id string, s *lazyStore) {
	if a.stores == nil {
		a.stores = map[string]*lazyStore{}
	}
	a.stores[id] = s
}

// Start opens the stores. One that several processes share may be out of reach
// for now, which must not keep other sites from starting; it is tried again
// when it is needed.
func (a *App) Start() error {
	var err error
	for _, s := range a.stores {
		if _, e := s.get(); e != nil && !s.shared {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Stop does nothing: a store is closed when no configuration uses it any more.
func (*App) Stop() error { return nil }

// Interface guards
var _ caddy.App = (*App)(nil)
