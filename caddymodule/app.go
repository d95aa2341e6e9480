package caddymodule

import (
	"context"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

const appName = "oauth_session"

func init() {
	caddy.RegisterModule(App{})
}

// App opens the stores of all oauth_session handlers when a configuration starts. A
// store that does not open is then found at the start and not by the first visitor. The
// App has no settings; a handler loads it.
//
// Handlers do not open stores in Provision, because `caddy validate` provisions too, and
// must not disturb a running Caddy.
type App struct {
	vaults map[*pooledVault]int // with the number of handlers that use each
	key    *ownKey
	shared []sharing
	routes map[*caddyhttp.Route]handlerHosts
	logger *zap.Logger

	nesting *nesting

	keyTasks  *keyTasks
	preflight *preflight
	events    *eventQueue
	// stop is the end of the time for stopping. It is zero while the configuration runs.
	stop time.Time
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger, a.key, a.keyTasks, a.routes = ctx.Logger(), new(ownKey), new(keyTasks), map[*caddyhttp.Route]handlerHosts{}
	a.nesting, a.preflight = newNesting(), newPreflight()
	var err error
	a.events, err = newEventQueue(ctx)
	return err
}

// use registers a store that one more handler of this configuration uses.
func (a *App) use(v *pooledVault) {
	if a.vaults == nil {
		a.vaults = map[*pooledVault]int{}
	}
	a.vaults[v]++
}

// stopBy returns the time by which all stores of a configuration that has ended must be
// closed. The first call sets it.
func (a *App) stopBy() time.Time {
	if a.stop.IsZero() {
		a.stop = time.Now().Add(destructTimeout)
	}
	return a.stop
}

// closeStores begins to close all stores that no other configuration uses, when the first
// handler of this one is cleaned up. Caddy cleans up one handler after another, and each
// of many stores may have to wait for a server that does not answer.
func (a *App) closeStores() {
	if !a.stop.IsZero() {
		return
	}
	by := a.stopBy()
	for v, handlers := range a.vaults {
		if all, ok := pool.References(vaultKey(v.name)); ok && all == handlers {
			v.startClosing(by)
		}
	}
}

// Start writes the key file, if there is none yet, and opens the stores. A shared store
// is opened in the background, because an unreachable one must not delay other sites. It
// is opened again when a request needs it.
func (a *App) Start() error {
	if err := a.key.keep(); err != nil {
		return err
	}
	var err error
	for v := range a.vaults {
		s := v.store
		if s.shared {
			continue // preflight opens it
		}
		if _, e := s.get(context.Background()); e != nil {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return err
	}
	a.warnOfUnroutedCallbacks()
	a.warnOfEarlyUsers()
	a.warnOfNestedLogins()
	a.keyTasks.start()
	a.preflight.start()
	a.events.start()
	return nil
}

// Stop does nothing. A store is closed when the last configuration that uses it is gone.
func (*App) Stop() error { return nil }

// Interface guards
var (
	_ caddy.App         = (*App)(nil)
	_ caddy.Provisioner = (*App)(nil)
)
