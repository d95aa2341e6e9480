package fleet

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/redis"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// writers is how many sessions are written at a time; bolt puts them into one
// transaction.
const writers = 256

// prefill writes sessions into the store of a subject that does not run yet,
// as its own logins would, and returns their Cookie headers.
func (f *Fleet) prefill(ctx context.Context, s *Subject, n int) ([]string, error) {
	store, size, err := f.open(s)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	empty, err := size()
	if err != nil {
		return nil, err
	}
	ring, err := seal.NewKeyRing(f.key)
	if err != nil {
		return nil, fmt.Errorf("filling the store: %w", err)
	}
	vault := keeper.NewVault(store)
	k, err := keeper.New(keeper.Config{
		Vault: vault, Site: seal.NewSite(ring, f.issuer.URL, clientID, ""), Refresher: noRefresh{}, DefaultTokenLifetime: tokenLife,
	})
	if err != nil {
		return nil, fmt.Errorf("filling the store: %w", err)
	}
	cookies := make([]string, n)
	err = each(n, func(i int) error {
		secret, err := create(ctx, k, i, f.prefix+text(tokenSize-len(f.prefix)))
		cookies[i] = cookieName + "=" + secret.Cookie()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("filling the store: %w", err)
	}
	full, err := size()
	f.StoreBytes[s.Name] = full - empty
	return cookies, errors.Join(err, vault.Close(ctx))
}

// noRefresh is for a keeper that creates sessions and nothing else.
type noRefresh struct{ keeper.Refresher }

func create(ctx context.Context, k *keeper.Keeper, i int, token string) (seal.Secret, error) {
	now := time.Now()
	user := fmt.Sprintf("user-%d", i)
	secret, _, err := k.Create(ctx, keeper.Identity{
		Subject: user, SID: text(32), Claims: fmt.Appendf(nil, `{"email":%q,"name":%q,"groups":["users"]}`, user+"@example.test", user),
	}, keeper.Tokens{
		AccessToken: token, RefreshToken: text(67), IDToken: text(1000),
		Obtained: now, Expires: now.Add(tokenLife),
	})
	return secret, err
}

// closableStore is what both stores are.
type closableStore interface {
	session.Store
	Close() error
}

// open opens the store of a subject, and returns what tells its size in bytes.
func (f *Fleet) open(s *Subject) (closableStore, func() (int64, error), error) {
	if s.Name == Redis {
		store, err := redis.Open(redis.Config{URLs: []string{f.redis.url()}})
		return store, f.redis.usedMemory, err
	}
	store, err := bolt.Open(f.boltFile())
	return store, func() (int64, error) {
		info, err := os.Stat(f.boltFile())
		if err != nil {
			return 0, fmt.Errorf("looking at the store's file: %w", err)
		}
		return info.Size(), nil
	}, err
}

// each calls do for 0 to n-1 from many goroutines, until one fails.
func each(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// text compresses no better than a token would.
func text(n int) string {
	var b strings.Builder
	for b.Len() < n {
		var random [8]byte
		for i := range random {
			random[i] = byte(rand.Uint32())
		}
		b.WriteString(hex.EncodeToString(random[:]))
	}
	return b.String()[:n]
}
