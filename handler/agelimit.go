package handler

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// AgeLimit limits the age of the token for some requests: for sensitive ones, or
// for an app that needs up-to-date claims.
type AgeLimit struct {
	// Match reports whether the limit applies to a request. It is required.
	Match func(*http.Request) bool
	// Age is the greatest age. With 0 each request gets a token that was obtained
	// after the request arrived.
	Age time.Duration
}

// minReloginAge is the least age at which a session without a refresh token is sent
// through a new login. With a smaller age, a slow login would be followed by the
// next one: its token would already be too old at the first request.
const minReloginAge = 30 * time.Second

// freshSession returns the session of a request, with a token that is young enough
// for the request. The error is that of the keeper, or errTooOld.
func (h *Handler) freshSession(r *http.Request, c *cookies) (*keeper.Session, error) {
	source := h.sessions(c)
	age, limited := h.ageLimit(r)
	if !limited {
		return source.Fresh(r.Context(), c.secret)
	}
	s, err := source.FreshSince(r.Context(), c.secret, time.Now().Add(-age))
	if !errors.Is(err, keeper.ErrNotRefreshable) {
		return s, err
	}
	s, err = source.Fresh(r.Context(), c.secret)
	if err == nil && time.Since(s.TokenObtained) > max(age, minReloginAge) {
		return nil, errTooOld
	}
	return s, err
}

// sessionSource returns the session of a request: the Keeper, or the Keeper's Passive for
// a request that does not count as use of its session.
type sessionSource interface {
	Fresh(ctx context.Context, secret seal.Secret) (*keeper.Session, error)
	FreshSince(ctx context.Context, secret seal.Secret, since time.Time) (*keeper.Session, error)
	FreshOtherThan(ctx context.Context, secret seal.Secret, refused string) (*keeper.Session, error)
}

func (h *Handler) sessions(c *cookies) sessionSource {
	if c.passive {
		return h.Keeper.Passive()
	}
	return h.Keeper
}

// errTooOld reports a token that is too old for the request and cannot be
// refreshed. Only a new login gets a younger one.
var errTooOld = errors.New("the token is too old and cannot be refreshed")

// ageLimit returns the strictest limit that applies to a request. For an ambiguous
// path that is the strictest of all, because the app may read the path as any of
// the limited ones.
func (h *Handler) ageLimit(r *http.Request) (age time.Duration, limited bool) {
	if len(h.RefreshIfOlder) > 0 && h.hasAmbiguousPath(r) {
		byAge := func(a, b AgeLimit) int { return cmp.Compare(a.Age, b.Age) }
		return slices.MinFunc(h.RefreshIfOlder, byAge).Age, true
	}
	for _, l := range h.RefreshIfOlder {
		if (!limited || l.Age < age) && l.Match(r) {
			age, limited = l.Age, true
		}
	}
	return age, limited
}
