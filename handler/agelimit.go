package handler

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// AgeLimit is how old a token may be for some requests: sensitive ones, or
// those of an app that wants its claims anew from time to time.
type AgeLimit struct {
	Match func(*http.Request) bool
	// Age 0 wants a new token for each request.
	Age time.Duration
}

// reloginAge is the least age at which a session that cannot refresh is sent
// through a new login: a login that is already over by the time its first
// request comes would never be young enough.
const minReloginAge = 30 * time.Second

// fresh returns the session behind a request, with a token as young as the
// request wants it.
func (h *Handler) freshSession(r *http.Request, c *cookies) (*keeper.Session, error) {
	age, limited := h.ageLimit(r)
	if !limited {
		return h.Keeper.Fresh(r.Context(), c.secret)
	}
	s, err := h.Keeper.FreshSince(r.Context(), c.secret, time.Now().Add(-age))
	if !errors.Is(err, keeper.ErrNotRefreshable) {
		return s, err
	}
	s, err = h.Keeper.Fresh(r.Context(), c.secret)
	if err == nil && time.Since(s.TokenObtained) > max(age, minReloginAge) {
		return nil, errTooOld
	}
	return s, err
}

// errTooOld: only a new login gets a token as young as the request wants it.
var errTooOld = errors.New("the token is too old and cannot be refreshed")

// ageLimit is the strictest limit for a request. The app may read an ambiguous
// path as any of the paths that have a limit.
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
