package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Defaults of the durations in a Config.
const (
	DefaultIdleTimeout    = 8 * time.Hour
	DefaultMaxLifetime    = 24 * time.Hour
	DefaultRefreshTimeout = 10 * time.Second
	DefaultTokenLifetime  = 5 * time.Minute
)

// Config is what a Keeper works with. Vault, Site and Refresher are required.
// Durations must not be negative; zero stands for the default.
type Config struct {
	Vault     *Vault
	Site      *seal.Site
	Refresher Refresher
	// Server names the authorization server. Keepers of one Vault with the same
	// name share its circuit breaker: while the server is down, one refresh at a
	// time is sent to find out whether it is back. Empty: the keeper has its own.
	Server string
	// IdleTimeout ends a session that long after its last use. Uses are written
	// down at most every five minutes (or 5 % of the time-out, if that is less),
	// so that it may end that much later, and never earlier. Default:
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// MaxLifetime ends a session that long after the login. Default:
	// DefaultMaxLifetime.
	MaxLifetime time.Duration
	// RefreshTimeout bounds how long a request with an expired token waits.
	// Default: DefaultRefreshTimeout.
	RefreshTimeout time.Duration
	// DefaultTokenLifetime is assumed where the server does not say how long an
	// access token lives. Default: the constant of the same name.
	DefaultTokenLifetime time.Duration
	// Observe, if not nil, is told what happens outside of requests. It must
	// not block.
	Observe func(Event)
}

// Keeper answers for the sessions of one site.
type Keeper struct {
	Config
	breaker *breaker
	// client is open while the server refuses this keeper's client. Other clients
	// of the same server are none the worse for that.
	client *circuit
	// touchEvery is how often a use is written down.
	useInterval time.Duration
}

// touchMax bounds how long a use may stay unwritten.
const maxUseInterval = 5 * time.Minute

// New returns a keeper. Its errors name the field of the Config.
func New(c Config) (*Keeper, error) {
	switch {
	case c.Vault == nil:
		return nil, errors.New("Vault is missing")
	case c.Vault.store == nil:
		return nil, errors.New("Vault has no store")
	case c.Site == nil:
		return nil, errors.New("Site is missing")
	case !c.Site.HasKeys():
		return nil, errors.New("Site has no keys")
	case c.Refresher == nil:
		return nil, errors.New("Refresher is missing")
	}
	for _, d := range []struct {
		field    string
		value    *time.Duration
		standard time.Duration
	}{
		{"IdleTimeout", &c.IdleTimeout, DefaultIdleTimeout},
		{"MaxLifetime", &c.MaxLifetime, DefaultMaxLifetime},
		{"RefreshTimeout", &c.RefreshTimeout, DefaultRefreshTimeout},
		{"DefaultTokenLifetime", &c.DefaultTokenLifetime, DefaultTokenLifetime},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("%s must not be negative", d.field)
		}
		*d.value = cmp.Or(*d.value, d.standard)
	}
	if c.Observe == nil {
		c.Observe = func(Event) {}
	}
	return &Keeper{
		Config: c, breaker: c.Vault.breaker(c.Server), client: &circuit{},
		useInterval: min(maxUseInterval, c.IdleTimeout/20),
	}, nil
}

// Valid reports whether New has made the keeper. Any other one panics.
func (k *Keeper) Valid() bool { return k.Vault != nil }

// Session is what a request may know of its session.
type Session struct {
	ID      session.ID
	Subject string
	// Claims is a JSON object, or empty. It must not be modified.
	Claims json.RawMessage
	// AccessToken is valid unless the session comes from Peek.
	AccessToken string
	// Bearer is the access token as a value of the Authorization header (RFC
	// 6750, section 2.1).
	Bearer        string
	TokenObtained time.Time
	TokenExpires  time.Time
	Created       time.Time
	// IdleEnd is when the session ends if it is not used again.
	IdleEnd time.Time
	// End is when it ends in any case.
	End time.Time

	epoch uint64 // see live
}

// Create keeps a new session and returns the secret for its cookie. The error is
// an *UnavailableError: the store failed, or, if it is ErrLoggedOut as well, the
// authorization server has logged the user out since it issued the tokens. No
// session is left then, and the caller may give the tokens back.
func (k *Keeper) Create(ctx context.Context, who Identity, t Tokens) (seal.Secret, *Session, error) {
	secret := seal.NewSecret()
	ref := k.Site.Ref(secret)
	now := time.Now()
	rec := &record{
		hot: hot{
			created: now, lastUsed: now, end: now.Add(k.MaxLifetime),
			subject: who.Subject, claims: who.Claims,
			token: newAccessToken(t, t.RefreshToken != "", now, k.DefaultTokenLifetime),
		},
		cold: cold{
			refreshToken: t.RefreshToken, refreshExpires: t.RefreshExpires,
			idToken: t.IDToken, sid: who.SID, nonce: who.Nonce, userInfo: who.UserInfo,
		},
	}
	item, err := k.sealItem(ref, rec)
	if err == nil {
		err = k.Vault.store.Create(ctx, ref.ID, item)
		k.Vault.probes.recordWrite(err)
	}
	if err == nil {
		err = k.endIfLoggedOut(ctx, ref.ID, who, item.Tags)
	}
	if err != nil {
		// It may be there all the same.
		k.Vault.background(func() { k.deleteCreated(ref.ID) })
		return seal.Secret{}, nil, unavailable(fmt.Errorf("keeping new session: %w", err))
	}
	return secret, k.sessionOf(ref.ID, &rec.hot), nil
}

// Fresh returns the session of a secret with a usable access token. It counts
// as use of the session, which IdleEnd need not show yet: other requests may get
// the same Session, which must not be modified.
//
// While the token is good Fresh never waits for the authorization server. Once
// it has expired, Fresh waits for a refresh, RefreshTimeout at most.
//
// The error is ErrNoSession, an *EndedError (which is also ErrNoSession), an
// *UnavailableError, or that of ctx.
func (k *Keeper) Fresh(ctx context.Context, secret seal.Secret) (*Session, error) {
	return k.fresh(ctx, secret, demand{})
}

// FreshSince is Fresh with a token that was obtained at the given time or
// later, or while the call waited, and with an IdleEnd that counts from now. It
// waits for that even if the token at hand is good. The error can also be
// ErrNotRefreshable.
func (k *Keeper) FreshSince(ctx context.Context, secret seal.Secret, since time.Time) (*Session, error) {
	return k.fresh(ctx, secret, demand{since: since})
}

// FreshOtherThan is Fresh with a token other than one that was found not to be
// accepted any more. The error can also be ErrNotRefreshable.
func (k *Keeper) FreshOtherThan(ctx context.Context, secret seal.Secret, refused string) (*Session, error) {
	return k.fresh(ctx, secret, demand{since: farFuture, other: refused})
}

// never is later than any time at which a token can have been obtained.
var farFuture = time.Unix(1<<60, 0)

func (k *Keeper) fresh(ctx context.Context, secret seal.Secret, d demand) (*Session, error) {
	ref := k.Site.Ref(secret)
	h, err := k.readHot(ctx, ref)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if k.endReason(ref.ID, &h, now) != "" {
		mark := h.epoch
		if h, err = k.endIfExpired(ctx, ref); err != nil {
			return nil, err
		}
		h.epoch = mark
	}
	unused := now.Sub(h.lastUsed)
	if h.token.due(now) || d != (demand{}) {
		if early := k.Vault.uncommitted(ref.ID); early != nil && early.rotation > h.rotation {
			h = *early.withEpoch(h.epoch)
		}
		if d.other == "" && d != (demand{}) {
			d.other = h.token.value
		}
	}
	if h.token.due(now) || !d.metBy(&h.token, now) {
		var use time.Time
		switch {
		case unused < k.useInterval:
		case unused > k.IdleTimeout-maxRefreshTime:
			k.recordUse(ref, now) // others must know before the refresh is over
		default:
			use = now
		}
		h.lastUsed = now
		return k.serveWithRefresh(ctx, ref, &h, d, use)
	}
	if unused >= k.useInterval {
		k.recordUse(ref, now)
	}
	if d == (demand{}) && h.cached != nil {
		return h.cached.sessionFor(k, ref.ID, h.epoch), nil // of every proxied request
	}
	h.lastUsed = now
	return k.sessionOf(ref.ID, &h), nil
}

// Peek returns the session of a secret without using it: its idle time runs
// on, nothing is refreshed, and its access token may have expired.
func (k *Keeper) Peek(ctx context.Context, secret seal.Secret) (*Session, error) {
	ref := k.Site.Ref(secret)
	h, err := k.readHot(ctx, ref)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if k.endReason(ref.ID, &h, now) != "" || (h.token.refreshAt.IsZero() && !h.token.usable(now)) {
		return nil, ErrNoSession
	}
	return k.sessionOf(ref.ID, &h), nil
}

// session is the public view of a hot part.
func (k *Keeper) sessionOf(id session.ID, h *hot) *Session {
	end := k.absoluteEnd(h)
	idleEnd := h.lastUsed.Add(k.IdleTimeout)
	if idleEnd.After(end) {
		idleEnd = end
	}
	credentials := h.token.bearer
	if credentials == "" {
		credentials = bearer(h.token.value)
	}
	return &Session{
		ID: id, Subject: h.subject, Claims: h.claims,
		AccessToken: h.token.value, Bearer: credentials, TokenObtained: h.token.obtained, TokenExpires: h.token.expires,
		Created: h.created, IdleEnd: idleEnd, End: end, epoch: h.epoch,
	}
}

const bearerScheme = "Bearer "

func bearer(accessToken string) string { return bearerScheme + accessToken }

// absoluteEnd lets a shortened max_lifetime count for sessions that exist.
func (k *Keeper) absoluteEnd(h *hot) time.Time {
	if end := h.created.Add(k.MaxLifetime); end.Before(h.end) {
		return end
	}
	return h.end
}

// ended returns why a session is over, or "".
func (k *Keeper) endReason(id session.ID, h *hot, now time.Time) EndReason {
	idle := k.IdleTimeout + k.useInterval
	switch {
	case !now.Before(k.absoluteEnd(h)):
		return EndLifetime
	case !now.Before(h.lastUsed.Add(idle)) && !now.Before(k.Vault.uses.last(id).Add(idle)):
		return EndIdle
	}
	return ""
}

// usable: the token may be sent upstream.
func (t *accessToken) usable(now time.Time) bool { return now.Before(t.usableUntil) }

// due: the token should be refreshed.
func (t *accessToken) due(now time.Time) bool {
	return !t.refreshAt.IsZero() && !now.Before(t.refreshAt)
}
