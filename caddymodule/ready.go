package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// readyTimeout bounds the check of all stores and authorization servers.
const readyTimeout = 5 * time.Second

// storeState is the state of one store in the answer.
type storeState struct {
	Store string `json:"store"`
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"`
}

// siteState is the state of one site in the answer. It is ready if its store is, and if
// the metadata and keys of its authorization server have been fetched.
type siteState struct {
	Site   string `json:"site"` // as in the log, see siteLabel
	Ready  bool   `json:"ready"`
	Store  string `json:"store"`
	Issuer string `json:"issuer,omitempty"`
	Error  string `json:"error,omitempty"`
}

// serveReady does what logins need: it writes to the stores, and fetches metadata and
// keys that are not there yet. Metadata of an earlier fetch is enough: while the
// authorization server is down, sessions go on, and a load balancer that took out all
// instances would end the service for everyone.
func serveReady(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed}
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	stores := readyStores(ctx)
	sites := readySites(ctx, stores)
	ready := !slices.ContainsFunc(sites, func(s *siteState) bool { return !s.Ready })
	states := make([]*storeState, 0, len(stores))
	for _, s := range stores {
		ready = ready && s.Ready
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b *storeState) int { return strings.Compare(a.Store, b.Store) })
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(map[string]any{"ready": ready, "stores": states, "sites": sites})
}

// readyStores checks all stores at the same time.
func readyStores(ctx context.Context) map[*pooledVault]*storeState {
	states := map[*pooledVault]*storeState{}
	var asked sync.WaitGroup
	pool.Range(func(_, value any) bool {
		if v, ok := value.(*pooledVault); ok {
			state := &storeState{Store: storeName(v.name)}
			states[v] = state
			asked.Go(func() {
				err := v.store.check(ctx)
				if state.Ready = err == nil; err != nil {
					state.Error = err.Error()
				}
			})
		}
		return true
	})
	asked.Wait()
	return states
}

// readySites checks the authorization servers of all sites at the same time. Several
// directives of one site have one state each only if they differ.
func readySites(ctx context.Context, stores map[*pooledVault]*storeState) []*siteState {
	var asked sync.WaitGroup
	states := []*siteState{}
	for _, s := range servedSites.current() {
		state := &siteState{Site: s.label, Store: storeName(s.vault.name), Issuer: s.client.Issuer()}
		states = append(states, state)
		store := stores[s.vault]
		asked.Go(func() {
			if store != nil && !store.Ready {
				state.Error = fmt.Sprintf("store: %s", store.Error)
				return
			}
			err := failure(serverFindings(ctx, s.client))
			if state.Ready = err == nil; err != nil {
				state.Error = err.Error()
			}
		})
	}
	asked.Wait()
	slices.SortFunc(states, func(a, b *siteState) int { return strings.Compare(a.Site, b.Site) })
	return slices.CompactFunc(states, func(a, b *siteState) bool { return *a == *b })
}
