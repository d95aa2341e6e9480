package caddymodule

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// pool holds what outlives a reload: stores with their vaults, and clients with
// the metadata and keys they have fetched.
var pool = caddy.NewUsagePool()

// pooled is what one handler has taken from the pool.
type pooled struct{ keys []string }

func (p *pooled) take(key string, construct caddy.Constructor) (any, error) {
	v, _, err := pool.LoadOrNew(key, construct)
	if err == nil {
		p.keys = append(p.keys, key)
	}
	return v, err
}

// release gives everything back.
func (p *pooled) release() error {
	var err error
	for _, key := range p.keys {
		_, e := pool.Delete(key)
		err = errors.Join(err, e)
	}
	p.keys = nil
	return err
}

// vault returns the vault of a store. The store is not opened yet.
func (p *pooled) vault(module StoreModule) (*pooledVault, error) {
	v, err := p.take("store "+module.StoreID(), func() (caddy.Destructor, error) {
		s := &lazyStore{open: module.OpenStore, shared: module.Shared()}
		if s.shared {
			return &pooledVault{Vault: keeper.NewVault(lazySharedStore{s}), store: s, name: module.StoreID()}, nil
		}
		return &pooledVault{Vault: keeper.NewVault(s), store: s, name: module.StoreID()}, nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*pooledVault), nil
}

type pooledVault struct {
	*keeper.Vault
	store *lazyStore
	name  string // the store's ID
}

// destructTimeout is how long refreshes under way may take to finish when the
// last configuration that uses their store is gone: one request to a slow server
// and the writing of its result. A refresh that has to repeat its request may be
// cut off. Without refreshes under way, closing takes no time.
const destructTimeout = 90 * time.Second

// Destruct implements caddy.Destructor.
func (v *pooledVault) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), destructTimeout)
	defer cancel()
	err := v.Close(ctx)
	return errors.Join(err, v.store.close())
}

// client returns the client for a configuration: the same one for the same
// configuration, so that a reload forgets neither metadata nor keys. The
// settings stand for what the configuration holds in another form.
func (p *pooled) client(c oauth.Config, settings ...string) (*oauth.Client, error) {
	comparable := c
	comparable.ClientSecret, comparable.RootCAs = nil, nil
	comparable.Scopes = c.RequestedScopes()
	fingerprint := sha256.Sum256(fmt.Appendf(nil, "%#v %q", comparable, settings))
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

// Destruct implements caddy.Destructor. A client holds nothing that must be
// closed.
func (pooledClient) Destruct() error { return nil }
