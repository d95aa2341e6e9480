package caddymodule

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// pool has the objects that outlive a reload: stores with their vaults, and clients with
// their fetched metadata and keys.
var pool = caddy.NewUsagePool()

// pooled has the keys of one handler's objects in the pool, and its vaults.
type pooled struct {
	keys   []string
	vaults []*pooledVault
}

func (p *pooled) take(key string, construct caddy.Constructor) (any, error) {
	v, _, err := pool.LoadOrNew(key, construct)
	if err == nil {
		p.keys = append(p.keys, key)
	}
	return v, err
}

// release returns all objects to the pool. The time for closing a store ends with by.
func (p *pooled) release(by time.Time) error {
	for _, v := range p.vaults {
		v.closeBy.Store(&by)
	}
	var err error
	for _, key := range p.keys {
		_, e := pool.Delete(key)
		err = errors.Join(err, e)
	}
	*p = pooled{}
	return err
}

// vault returns the vault of a store. The store is not opened yet.
func (p *pooled) vault(module StoreModule) (*pooledVault, error) {
	v, err := p.take(vaultKey(module.StoreID()), func() (caddy.Destructor, error) {
		s := &lazyStore{name: storeName(module.StoreID()), open: module.OpenStore, shared: module.Shared()}
		if s.shared {
			return &pooledVault{Vault: keeper.NewVault(lazySharedStore{s}), store: s, name: module.StoreID()}, nil
		}
		return &pooledVault{Vault: keeper.NewVault(s), store: s, name: module.StoreID()}, nil
	})
	if err != nil {
		return nil, err
	}
	vault := v.(*pooledVault)
	p.vaults = append(p.vaults, vault)
	return vault, nil
}

type pooledVault struct {
	*keeper.Vault
	store *lazyStore
	name  string // the store's ID
	// closeBy is set before the vault returns to the pool.
	closeBy atomic.Pointer[time.Time]

	closing  sync.Once
	closed   chan struct{} // set by closing
	closeErr error         // set before closed is closed
}

// vaultKey returns the key in the pool for a store's ID.
func vaultKey(storeID string) string { return "store " + storeID }

// destructTimeout is how long refreshes in progress may take to finish when the last
// configuration that uses their stores is gone: one request to a slow server, and the
// write of its result. A refresh that has to repeat its request may be cancelled. Without
// refreshes in progress and unwritten uses, closing takes no time. All stores close at the
// same time (see App.closeStores), so the time is that of all stores together.
const destructTimeout = 90 * time.Second

// startClosing begins to close the vault and its store. Later calls do nothing.
func (v *pooledVault) startClosing(by time.Time) {
	v.closing.Do(func() {
		v.closed = make(chan struct{})
		go func() {
			defer close(v.closed)
			ctx, cancel := context.WithDeadline(context.Background(), by)
			defer cancel()
			err := v.Close(ctx)
			v.closeErr = errors.Join(err, v.store.close())
		}()
	})
}

// Destruct implements caddy.Destructor.
func (v *pooledVault) Destruct() error {
	v.startClosing(*v.closeBy.Load())
	<-v.closed
	return v.closeErr
}

// client returns the client for a configuration. Equal configurations share one client,
// so a reload keeps metadata and keys. The configuration's text (%#v) is the key in the
// pool; settings has the values that it contains only as pointers or functions.
func (p *pooled) client(c oauth.Config, settings ...string) (*oauth.Client, error) {
	key := c
	key.ClientSecret, key.RootCAs, key.Trace = nil, nil, nil
	key.Scopes = c.RequestedScopes()
	fingerprint := sha256.Sum256(fmt.Appendf(nil, "%#v %q", key, settings))
	v, err := p.take(fmt.Sprintf("client %x", fingerprint), func() (caddy.Destructor, error) {
		client, err := oauth.New(c)
		return pooledClient{client}, err
	})
	if err != nil {
		return nil, err
	}
	return v.(pooledClient).Client, nil
}

type pooledClient struct{ *oauth.Client }

// Destruct implements caddy.Destructor. A client has no resource to close.
func (pooledClient) Destruct() error { return nil }
