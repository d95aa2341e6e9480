// Package stores fills and uses session stores without HTTP, as logins and requests would.
package stores

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/process"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/redis"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Callers is the number of concurrent writers. One transaction of bolt takes as many writes.
const Callers = 256

// ClientID is the client of all sessions.
const ClientID = "bench"

// A Config describes an open store.
type Config struct {
	Place   string // a URL of Redis ("unix://…") or the path of a file
	Key     seal.Key
	Issuer  string
	Observe func(keeper.Event)
	// IDTokens, if not nil, reports whether a refresh returns an ID token.
	IDTokens func() bool
}

// Sessions are those of one store, with an authorization server that answers at once.
type Sessions struct {
	*keeper.Keeper
	Store session.Store
	Site  *seal.Site
	vault *keeper.Vault
	close func() error
}

// Open opens a store.
func Open(c Config) *Sessions {
	defer check.Doing("opening a store")
	s := &Sessions{}
	if strings.HasPrefix(c.Place, "unix://") {
		store := check.Value(redis.Open(redis.Config{URLs: []string{c.Place}}))
		s.Store, s.close = store, store.Close
	} else {
		store := check.Value(bolt.Open(c.Place))
		s.Store, s.close = store, store.Close
	}
	s.vault, s.Site = keeper.NewVault(s.Store), seal.NewSite(check.Value(seal.NewKeyRing(c.Key)), c.Issuer, ClientID, "")
	s.Keeper = check.Value(keeper.New(keeper.Config{
		Vault: s.vault, Site: s.Site, Refresher: server{c.IDTokens}, Observe: c.Observe, DefaultTokenLifetime: 10 * time.Minute,
	}))
	return s
}

// Close ends all work with the store and closes it.
func (s *Sessions) Close() { check.OK(errors.Join(s.vault.Close(context.Background()), s.close())) }

// Login creates a session. A non-empty prefix begins its access token.
func (s *Sessions) Login(prefix string) seal.Secret {
	t := tokens(true)
	t.AccessToken = prefix + t.AccessToken[len(prefix):]
	return s.login(Text(36), t)
}

// LoginAs creates a session of a user.
func (s *Sessions) LoginAs(user string) seal.Secret { return s.login(user, tokens(true)) }

func (s *Sessions) login(user string, t keeper.Tokens) seal.Secret {
	secret, _, err := s.Create(context.Background(), keeper.Identity{
		Subject: user, SID: Text(36), Nonce: Text(43), IssuedAt: time.Now(), UserAgent: userAgent,
		Claims: fmt.Appendf(nil, `{"name":%q}`, Text(claimsSize-len(`{"name":""}`))),
	}, t)
	check.OK(err)
	return secret
}

// Size measures the data of a store in bytes.
func Size(place string) int64 {
	if strings.HasPrefix(place, "unix://") {
		return int64(process.RedisAt(place).Info("memory")("used_memory_dataset:"))
	}
	return check.Value(os.Stat(place)).Size()
}

// userAgent has the length of a browser's.
const userAgent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"

// Sizes of a Keycloak without extras, in bytes. The refresh token is not a JWT, as with most other
// servers.
const (
	AccessTokenSize  = 1138
	refreshTokenSize = 120
	idTokenSize      = 1190
	claimsSize       = 300
)

// tokenLife exceeds the time of any run: only explicit refreshes happen.
const tokenLife = 20 * time.Hour

func tokens(withID bool) keeper.Tokens {
	now := time.Now()
	t := keeper.Tokens{
		AccessToken: Text(AccessTokenSize), RefreshToken: Text(refreshTokenSize), Obtained: now, Expires: now.Add(tokenLife),
	}
	if withID {
		t.IDToken = Text(idTokenSize)
	}
	return t
}

// Text returns random text that compresses like a token.
func Text(n int) string {
	var b strings.Builder
	for b.Grow(n + 16); b.Len() < n; {
		b.WriteString(hex.EncodeToString(binary.LittleEndian.AppendUint64(nil, rand.Uint64())))
	}
	return b.String()[:n]
}

// server is an authorization server that answers at once.
type server struct{ idTokens func() bool }

// Refresh implements [keeper.Refresher].
func (s server) Refresh(_ context.Context, _ string, confirm func() error) keeper.Answer {
	if err := confirm(); err != nil {
		return keeper.Answer{Outcome: keeper.Unavailable, Err: err}
	}
	return keeper.Answer{Tokens: tokens(s.idTokens != nil && s.idTokens())}
}

// Identify implements [keeper.Refresher].
func (server) Identify(_ context.Context, current keeper.Identity, _ keeper.Tokens) (keeper.Identity, error) {
	return current, nil
}

// Discard implements [keeper.Refresher].
func (server) Discard(context.Context, keeper.Tokens) {}
