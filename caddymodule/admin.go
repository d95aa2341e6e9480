package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI adds to Caddy's admin endpoint:
//
//	GET /oauth_session/ready        200 if all session stores can be used, else 503
//	GET /oauth_session/sessions     sessions; parameters site, user, cursor, limit, count
//	DELETE /oauth_session/sessions  ends sessions by id, user or older_than; parameter site
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.oauth_session", New: func() caddy.Module { return new(AdminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/oauth_session/ready", Handler: caddy.AdminHandlerFunc(serveReady)},
		{Pattern: "/oauth_session/sessions", Handler: caddy.AdminHandlerFunc(serveSessions)},
	}
}

// readyTimeout bounds the check of all stores.
const readyTimeout = 5 * time.Second

// storeState is the state of one store in the answer.
type storeState struct {
	Store string `json:"store"`
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"`
}

func serveReady(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed}
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	var states []*storeState
	var asked sync.WaitGroup
	pool.Range(func(key, value any) bool {
		if v, ok := value.(*pooledVault); ok {
			state := &storeState{Store: v.name}
			states = append(states, state)
			asked.Go(func() {
				err := v.store.ready(ctx)
				if state.Ready = err == nil; err != nil {
					state.Error = err.Error()
				}
			})
		}
		return true
	})
	asked.Wait()
	status := http.StatusOK
	for _, s := range states {
		if !s.Ready {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(map[string]any{"ready": status == http.StatusOK, "stores": states})
}

// Interface guards
var _ caddy.AdminRouter = AdminAPI{}
