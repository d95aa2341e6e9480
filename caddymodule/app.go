package caddymodule

import (
	"context"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
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
	key    *ownKey
	shared []sharing
	routes map[*caddyhttp.Route]handlerHosts
	starts []func() // what handlers have to do once the configuration starts
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger, a.key, a.routes = ctx.Logger(), new(ownKey), map[*caddyhttp.Route]handlerHosts{}
	return nil
}

// use notes a store of this configuration.
func (a *App) use(id string, s *lazyStore) {
	if a.stores == nil {
		a.stores = map[string]*lazyStore{}
	}
	a.stores[id] = s
}

// atStart has f called when the configuration starts. It does not block.
func (a *App) atStart(f func()) { a.starts = append(a.starts, f) }

// Start makes the key, if there is none yet, and opens the stores. One that
// several processes share may be out of reach for now, which must not keep other
// sites waiting: it is opened behind, and tried again when it is needed.
func (a *App) Start() error {
	if err := a.key.keep(); err != nil {
		return err
	}
	var err error
	for _, s := range a.stores {
		if s.shared {
			go func() {
				if _, err := s.get(context.Background()); err != nil {
					a.logger.Error("a store cannot be used yet: requests that need a session are answered with status 503 until it can", zap.Error(err))
				}
			}()
			continue
		}
		if _, e := s.get(context.Background()); e != nil {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return err
	}
	for _, f := range a.starts {
		f()
	}
	return nil
}

// Stop does nothing: a store is closed when no configuration uses it any more.
func (*App) Stop() error { return nil }

// Interface guards
var (
	_ caddy.App         = (*App)(nil)
	_ caddy.Provisioner = (*App)(nil)
)
