package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Tokens are as large as those of a Keycloak without any extras, but for the
// refresh token: those of other servers are no JWT.
const (
	accessTokenSize  = 1138
	refreshTokenSize = 120
	idTokenSize      = 1190
	claimsSize       = 300
)

// newTokens last longer than any run: what is measured asks for each refresh.
func newTokens(withID bool) keeper.Tokens {
	now := time.Now()
	t := keeper.Tokens{
		AccessToken: text(accessTokenSize), RefreshToken: text(refreshTokenSize), Obtained: now, Expires: now.Add(20 * time.Hour),
	}
	if withID {
		t.IDToken = text(idTokenSize)
	}
	return t
}

// newIdentity is a user with one login.
func newIdentity() keeper.Identity {
	return keeper.Identity{
		Subject: text(36), SID: text(36), Nonce: text(43), IssuedAt: time.Now(),
		Claims: fmt.Appendf(nil, `{"name":%q}`, text(claimsSize-len(`{"name":""}`))),
	}
}

// text compresses no better than a token would.
func text(n int) string {
	var b strings.Builder
	b.Grow(n + 16)
	var random [8]byte
	for b.Len() < n {
		for i, bits := 0, rand.Uint64(); i < len(random); i, bits = i+1, bits>>8 {
			random[i] = byte(bits)
		}
		b.WriteString(hex.EncodeToString(random[:]))
	}
	return b.String()[:n]
}

// server is an authorization server that takes no time.
type server struct {
	idToken atomic.Bool // whether a refresh brings a new one
}

// Refresh implements [keeper.Refresher].
func (s *server) Refresh(_ context.Context, _ string, confirm func() error) keeper.Answer {
	if err := confirm(); err != nil {
		return keeper.Answer{Outcome: keeper.Unavailable, Err: err}
	}
	return keeper.Answer{Tokens: newTokens(s.idToken.Load())}
}

// Identify implements [keeper.Refresher].
func (s *server) Identify(_ context.Context, who keeper.Identity, _ keeper.Tokens) (keeper.Identity, error) {
	return who, nil
}

// Discard implements [keeper.Refresher].
func (s *server) Discard(context.Context, keeper.Tokens) {}

// secrets are those of all sessions, in a file: they are the browsers' memory,
// not that of the process which is measured.
type secrets struct{ file *os.File }

func openSecrets(path string) (secrets, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return secrets{}, fmt.Errorf("opening the file of the secrets: %w", err)
	}
	return secrets{f}, nil
}

func (s secrets) n() int {
	info, err := s.file.Stat()
	if err != nil {
		return 0
	}
	return int(info.Size()) / len(seal.Secret{})
}

func (s secrets) get(i int) (secret seal.Secret, err error) {
	_, err = s.file.ReadAt(secret[:], int64(i)*int64(len(secret)))
	return secret, err
}

func (s secrets) set(i int, secret seal.Secret) error {
	_, err := s.file.WriteAt(secret[:], int64(i)*int64(len(secret)))
	return err
}
