package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
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

// Config configures a Keeper. Vault, Site and Refresher are required. Durations must not
// be negative; zero means the default.
type Config struct {
	// Vault holds the store, and the state that the keepers on it share.
	Vault *Vault
	// Site encrypts the records and derives their IDs.
	Site *seal.Site
	// Refresher sends the refresh requests.
	Refresher Refresher
	// Server names the authorization server. Keepers of one Vault with the same
	// name share its circuit breaker: while the server is down, they send one
	// refresh at a time as a probe. With an empty name the keeper has a circuit
	// breaker to itself.
	Server string
	// IdleTimeout ends a session this long after its last use. A request is use until it
	// ends, unless it is passive or becomes a stream. The keeper writes uses at most
	// every five minutes, or every 5 % of the time-out if that is less. A session may
	// end later by that interval, and never earlier. Default: DefaultIdleTimeout.
	IdleTimeout time.Duration
	// MaxLifetime ends a session this long after the login. Default:
	// DefaultMaxLifetime.
	MaxLifetime time.Duration
	// RefreshTimeout bounds how long a request with an expired token waits for a
	// refresh. Default: DefaultRefreshTimeout.
	RefreshTimeout time.Duration
	// DefaultTokenLifetime is the lifetime of an access token for which the server
	// gives none (RFC 6749, section 5.1). Default: the constant DefaultTokenLifetime.
	DefaultTokenLifetime time.Duration
	// SessionLimit is the largest number of sessions of a user. A login ends the oldest ones
	// beyond it. It has no effect on users without a subject. 0: no limit.
	SessionLimit int
	// Observe, if not nil, is called with events that happen outside of requests.
	// It must not block.
	Observe func(Event)
}

// Keeper keeps the sessions of one site. New makes one. Its methods are safe for
// concurrent use.
type Keeper struct {
	Config
	breaker *breaker
	// client is open while the server refuses this keeper's client
	// (invalid_client). Other clients of the same server are not affected.
	client *circuit
	// useInterval is the shortest time between two written uses of a session.
	useInterval time.Duration
	// siteInterval is the useInterval, in nanoseconds, by which requests in progress record
	// their uses (see shareInterval).
	siteInterval *atomic.Int64
}

// maxUseInterval bounds useInterval for long idle time-outs.
const maxUseInterval = 5 * time.Minute

// New returns a keeper, or an error that names the invalid field of the Config.
func New(c Config) (*Keeper, error) {
	switch {
	case c.Vault == nil:
		return nil, errors.New("Vault is missing")
	case c.Vault.store == nil:
		return nil, errors.New("Vault has no store")
	case c.Site == nil:
		return nil, errors.New("Site is missing") //nolint:staticcheck // the name of a field
	case !c.Site.HasKeys():
		return nil, errors.New("Site has no keys") //nolint:staticcheck // the name of a field
	case c.Refresher == nil:
		return nil, errors.New("Refresher is missing")
	}
	if c.SessionLimit < 0 {
		return nil, errors.New("SessionLimit must not be negative")
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
	useInterval := min(maxUseInterval, c.IdleTimeout/20)
	return &Keeper{
		Config: c, breaker: c.Vault.breaker(c.Server), client: &circuit{},
		useInterval: useInterval, siteInterval: c.Vault.shareInterval(c.Site, useInterval),
	}, nil
}

// Valid reports whether the keeper comes from New. The methods of any other one panic.
func (k *Keeper) Valid() bool { return k.client != nil }

// Session is the part of a session that a request can see.
type Session struct {
	ID      session.ID
	Subject string
	// Claims is a JSON object, or empty. It must not be modified.
	Claims json.RawMessage
	// AccessToken has not expired, unless the session comes from Peek.
	AccessToken string
	// Bearer is the access token as a value of the Authorization header (RFC
	// 6750, section 2.1).
	Bearer string
	// TokenObtained is when the request for the access token was sent.
	TokenObtained time.Time
	// TokenExpires is when the access token expires.
	TokenExpires time.Time
	// TokenUsableUntil is when the access token is last sent to the app. It is before
	// TokenExpires, by 10 s or 5 % of the lifetime, whichever is less.
	TokenUsableUntil time.Time
	// Created is when the user logged in.
	Created time.Time
	// IdleEnd is when the session ends unless it is used again.
	IdleEnd time.Time
	// End is when the session ends even if it is used: MaxLifetime after the login, or
	// earlier if the authorization server says so in the ID token.
	End time.Time
	// LastsUntil is the latest time for which the session can be promised now: End, or
	// earlier if its tokens will have run out by then, as far as the authorization server
	// has said. A refresh may move it.
	LastsUntil time.Time

	epoch    uint64    // see liveRequests
	lastUsed time.Time // the last use that the store has
	// sessionExpiry and maxEnd are the two times of which End is the earlier one.
	sessionExpiry, maxEnd time.Time
}

// Create stores a new session and returns the secret for its cookie.
//
// The error is an *UnavailableError, and no session exists then: the caller may revoke
// the tokens. Either the store failed, or the error wraps ErrLoggedOut: the
// authorization server logged the user out after it had issued the tokens.
func (k *Keeper) Create(ctx context.Context, user Identity, t Tokens) (seal.Secret, *Session, error) {
	secret := seal.NewSecret()
	ref := k.Site.Ref(secret)
	now := time.Now()
	rec := &record{
		hot: hot{
			created: now, lastUsed: now, end: now.Add(k.MaxLifetime), sessionExpiry: user.SessionExpiry,
			subject: user.Subject, claims: user.Claims,
		},
		cold: cold{
			idToken: t.IDToken, sid: user.SID, nonce: user.Nonce, userInfo: user.UserInfo,
			userAgent: cut(user.UserAgent, maxLabelUserAgent),
		},
	}
	rec.setRefreshToken(t)
	rec.setAccessToken(newAccessToken(t, t.RefreshToken != "", now, k.DefaultTokenLifetime), &hot{})
	var item session.Item
	err := k.placeLogin(ctx, rec, user)
	if err == nil {
		item, err = k.sealItem(ref, rec)
	}
	if err == nil {
		err = k.Vault.store.Create(ctx, ref.ID, item)
		k.Vault.probes.recordWrite(err)
	}
	if err == nil {
		err = k.endIfLoggedOut(ctx, ref.ID, user, item.Tags)
	}
	if err == nil {
		err = k.limitSessions(ctx, user)
	}
	if err != nil {
		// A write that failed may have been done.
		k.Vault.background(func() { k.deleteCreated(ref.ID) })
		return seal.Secret{}, nil, unavailable(fmt.Errorf("keeping new session: %w", err))
	}
	return secret, k.sessionOf(ref.ID, &rec.hot), nil
}

// Fresh returns the session of a secret with an access token that has not expired. It
// counts as a use of the session, though IdleEnd may not reflect this use yet. Several
// requests may share one Session: it must not be modified.
//
// Until the token expires, Fresh never waits for the authorization server. After that
// it waits for a refresh, for RefreshTimeout at most.
//
// The error is ErrNoSession, an *EndedError (which is also ErrNoSession), an
// *UnavailableError, or the error of ctx.
func (k *Keeper) Fresh(ctx context.Context, secret seal.Secret) (*Session, error) {
	return k.fresh(ctx, secret, demand{})
}

// FreshSince is like Fresh, but the access token was obtained at the given time or
// later, or during the call. It waits for a refresh even if the current token has not
// expired. IdleEnd reflects this use. The error can also be ErrNotRefreshable.
func (k *Keeper) FreshSince(ctx context.Context, secret seal.Secret, since time.Time) (*Session, error) {
	return k.fresh(ctx, secret, demand{since: since})
}

// FreshOtherThan is like Fresh, but the access token differs from one that a resource
// server has refused. The error can also be ErrNotRefreshable.
func (k *Keeper) FreshOtherThan(ctx context.Context, secret seal.Secret, refused string) (*Session, error) {
	return k.fresh(ctx, secret, demand{since: farFuture, other: refused})
}

// farFuture is later than any possible accessToken.obtained.
var farFuture = time.Unix(1<<60, 0)

// fresh returns a session with a token that meets a demand, and records the use.
func (k *Keeper) fresh(ctx context.Context, secret seal.Secret, d demand) (*Session, error) {
	ref := k.Site.Ref(secret)
	h, err := k.readHot(ctx, ref)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if k.endReason(ref.ID, &h, now) != "" {
		epoch := h.epoch
		if h, err = k.endIfExpired(ctx, ref); err != nil {
			return nil, err
		}
		h.epoch = epoch
	}
	unused := now.Sub(h.lastUsed)
	if d.passive {
		unused = 0 // no use is recorded
	}
	if h.token.due(now) || d.isFresher() {
		// A refresh may have new tokens whose write takes long.
		if newer := k.Vault.uncommitted(ref.ID); newer != nil && newer.rotation > h.rotation {
			h = *newer.withEpoch(h.epoch)
		}
		if d.other == "" && d.isFresher() {
			d.other = h.token.value // any other token is obtained during this call
		}
	}
	if h.due(now) || !d.metBy(&h.token, now) {
		var use time.Time
		switch {
		case unused < k.useInterval:
		case unused > k.IdleTimeout-maxRefreshTime:
			// Other instances must know the use before the session becomes idle:
			// it cannot wait for the write of the refresh.
			k.recordUse(ref, now)
		default:
			use = now
		}
		if !d.passive {
			h.usedAt = now
		}
		return k.serveWithRefresh(ctx, ref, &h, d, use)
	}
	if unused >= k.useInterval {
		k.recordUse(ref, now)
	}
	if !d.isFresher() && h.cached != nil {
		return h.cached.sessionFor(k, ref.ID, h.epoch), nil // allocates nothing
	}
	if !d.passive {
		h.usedAt = now
	}
	return k.sessionOf(ref.ID, &h), nil
}

// Peek returns the session of a secret without counting as a use and without a
// refresh: the access token may have expired. The error is ErrNoSession or
// an *UnavailableError.
func (k *Keeper) Peek(ctx context.Context, secret seal.Secret) (*Session, error) {
	ref := k.Site.Ref(secret)
	h, err := k.readHot(ctx, ref)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if k.endReason(ref.ID, &h, now) != "" || !now.Before(h.tokensEnd(farFuture)) {
		return nil, ErrNoSession
	}
	h.usedAt = k.Vault.lastUse(ref.ID, now)
	return k.sessionOf(ref.ID, &h), nil
}

// sessionOf returns the Session that a request gets for a hot part.
func (k *Keeper) sessionOf(id session.ID, h *hot) *Session {
	end := k.absoluteEnd(h)
	idleEnd := latest(h.lastUsed, h.usedAt).Add(k.IdleTimeout)
	if idleEnd.After(end) {
		idleEnd = end
	}
	lasts := h.tokensEnd(end)
	if lasts.After(end) {
		lasts = end
	}
	authorization := h.token.bearer
	if authorization == "" {
		authorization = bearer(h.token.value)
	}
	return &Session{
		ID: id, Subject: h.subject, Claims: h.claims,
		AccessToken: h.token.value, Bearer: authorization, TokenObtained: h.token.obtained, TokenExpires: h.token.expires, TokenUsableUntil: h.token.usableUntil,
		Created: h.created, IdleEnd: idleEnd, End: end, LastsUntil: lasts,
		epoch: h.epoch, lastUsed: h.lastUsed, sessionExpiry: h.sessionExpiry, maxEnd: k.maxEnd(h),
	}
}

const bearerScheme = "Bearer "

func bearer(accessToken string) string { return bearerScheme + accessToken }

// absoluteEnd is the earlier of maxEnd and the end that the authorization server has set.
func (k *Keeper) absoluteEnd(h *hot) time.Time {
	return earlierEnd(k.maxEnd(h), h.sessionExpiry)
}

// earlierEnd returns the earlier of two times. A zero expiry is none.
func earlierEnd(end, expiry time.Time) time.Time {
	if !expiry.IsZero() && expiry.Before(end) {
		return expiry
	}
	return end
}

// tokensEnd returns when the tokens of a session run out, as far as the server has said:
// the access token, if there is no refresh token, or else the later of the two. If the
// expiry of the refresh token is not known, it returns unknown.
func (h *hot) tokensEnd(unknown time.Time) time.Time {
	switch {
	case h.token.refreshAt.IsZero():
		return h.token.usableUntil
	case h.refreshExpiry().IsZero():
		return unknown
	}
	return latest(h.refreshExpiry(), h.token.usableUntil)
}

// maxEnd is the earlier of the end in the record and the end by MaxLifetime: a shorter
// max_lifetime also applies to existing sessions.
func (k *Keeper) maxEnd(h *hot) time.Time {
	if end := h.created.Add(k.MaxLifetime); end.Before(h.end) {
		return end
	}
	return h.end
}

// endReason returns why a session has ended by its times, or "".
func (k *Keeper) endReason(id session.ID, h *hot, now time.Time) EndReason {
	idle := k.IdleTimeout + k.useInterval
	switch {
	case !now.Before(k.maxEnd(h)):
		return EndLifetime
	case !now.Before(k.absoluteEnd(h)):
		return EndSessionExpiry
	case !now.Before(h.lastUsed.Add(idle)) && !now.Before(k.Vault.lastUse(id, now).Add(idle)):
		return EndIdle
	}
	return ""
}

// usable reports whether the token may be sent upstream.
func (t *accessToken) usable(now time.Time) bool { return now.Before(t.usableUntil) }

// due reports whether a request should start a refresh. An expired refresh token is not
// sent while the access token is valid: its refusal would end the session.
func (h *hot) due(now time.Time) bool { return h.token.due(now) && !h.refreshExpired(now) }

// due reports whether the token should be refreshed, if that is possible.
func (t *accessToken) due(now time.Time) bool {
	return !t.refreshAt.IsZero() && !now.Before(t.refreshAt)
}
