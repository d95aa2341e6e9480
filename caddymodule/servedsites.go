package caddymodule

import (
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// servedSites has the sites of all provisioned handlers, for the requests of operators.
var servedSites siteRegistry

// servedSite is the site of one handler. Several handlers may have the same site: those of
// one login, and those of the old and the new configuration during a reload.
type servedSite struct {
	label  string // see siteLabel
	use    sharing
	keeper *keeper.Keeper
	vault  *pooledVault
	client *oauth.Client
	module StoreModule
	// handler and origins say what to register at the authorization server.
	handler *handler.Handler
	origins []string
	app     *App
	audit   *zap.Logger // the audit trail, without the name of a site
}

type siteRegistry struct {
	mu  sync.Mutex
	all []*servedSite
}

func (r *siteRegistry) add(s servedSite) *servedSite {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, &s)
	return &s
}

// remove removes an entry. It does nothing for nil.
func (r *siteRegistry) remove(s *servedSite) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(other *servedSite) bool { return other == s })
}

// storeSites are the sites with sessions in one store.
type storeSites struct {
	store string // its ID
	sites keeper.Sites
	// labels has the label of each keeper's site. If handlers with different labels share
	// the sessions of a site, it has all of them.
	labels  map[*keeper.Keeper]string
	clients map[*keeper.Keeper]string // the client IDs
}

// stores returns the sites with a label, or all if it is empty, by store and in a fixed
// order. Of several handlers of a site, the keeper of the last one counts.
func (r *siteRegistry) stores(label string) (stores []*storeSites) {
	type siteID struct{ store, authority, client, site string }
	r.mu.Lock()
	defer r.mu.Unlock()
	last, labels := map[siteID]*servedSite{}, map[siteID][]string{}
	for _, s := range r.all {
		id := siteID{s.use.store, s.use.authority, s.use.client, s.use.site}
		last[id] = s
		if !slices.Contains(labels[id], s.label) {
			labels[id] = append(labels[id], s.label)
		}
	}
	byStore := map[string]*storeSites{}
	for id, s := range last {
		if label != "" && !slices.Contains(labels[id], label) {
			continue
		}
		of := byStore[id.store]
		if of == nil {
			of = &storeSites{store: id.store, labels: map[*keeper.Keeper]string{}, clients: map[*keeper.Keeper]string{}}
			byStore[id.store] = of
			stores = append(stores, of)
		}
		slices.Sort(labels[id])
		of.sites = append(of.sites, s.keeper)
		of.labels[s.keeper], of.clients[s.keeper] = strings.Join(labels[id], " "), id.client
	}
	slices.SortFunc(stores, func(a, b *storeSites) int { return strings.Compare(a.store, b.store) })
	return stores
}

// labels returns the labels of all sites.
func (r *siteRegistry) labels() (labels []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		labels = append(labels, s.label)
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// auditLogger returns the audit trail of the newest configuration. caddy.Log would not do:
// it writes to the default log only, from which operators exclude the trail.
func (r *siteRegistry) auditLogger() *zap.Logger {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return zap.NewNop()
	}
	return r.all[len(r.all)-1].audit
}

// current returns all entries.
func (r *siteRegistry) current() []*servedSite {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}
