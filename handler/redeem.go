package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// loginFailure is the reason for which a code did not become a session. Callbacks
// of the same attempt that arrive at the same time share one value.
type loginFailure struct {
	answer  *Error
	restart bool // restart the login: the user seldom notices
	// clearAll deletes all login cookies: the other attempts would fail as well.
	clearAll bool
}

func (f *loginFailure) Error() string { return f.answer.Error() }

// redeem exchanges the code for tokens, stores the session, and sends the browser
// to the wanted page. All instances together do this once for each attempt, since a
// code can be used once (RFC 6749, section 4.1.2). It continues if the browser
// disconnects, because the code would be lost.
func (h *Handler) redeem(w http.ResponseWriter, r *http.Request, c *cookies, cb callback) error {
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	r = r.WithContext(context.WithoutCancel(r.Context()))
	cb.origin, cb.request = origin, r
	login := keeper.LoginAttempt{Cookie: cb.cookie.Value, Code: cb.code, End: cb.attempt.Begun.Add(loginAttemptLifetime)}
	// Over all instances, one callback of this attempt runs the function. The
	// others get its result.
	secret, own, err := h.Keeper.RedeemLogin(r.Context(), login, func(ctx context.Context) (keeper.Redemption, error) {
		return h.completeLogin(ctx, c, cb)
	})
	if err == nil && !own {
		// Another callback of this attempt created the session, which may have
		// ended since.
		_, err = h.Keeper.Peek(r.Context(), secret)
	}
	failed, ended := errors.AsType[*loginFailure](err)
	switch {
	case err == nil:
		// Every callback of this attempt sets the same session, because the browser
		// may discard the answer to any of them, such as that of a closed tab.
		h.setSession(w, secret)
		h.clearLoginCookie(w, cb.cookie.Name)
		h.setLoopCount(w, cb.attempt.landings().another())
		return h.redirectAfterLogin(w, r, cb.attempt.ReturnTo)
	case ended:
		return h.loginFailed(w, r, c, cb, failed)
	case errors.Is(err, keeper.ErrLoginOver), errors.Is(err, keeper.ErrNoSession):
		h.clearLoginCookie(w, cb.cookie.Name)
		// The attempt has the whole path. The state has none if it was too long.
		cb.state.ReturnTo = cb.attempt.ReturnTo
		return h.staleCallback(w, r, cb.state, err)
	case errors.Is(err, keeper.ErrManyLogins):
		return h.fail(w, r, loginBusy(err, cb.attempt.ReturnTo))
	default:
		return h.fail(w, r, storeUnavailable(err, cb.attempt.ReturnTo))
	}
}

// loginFailed answers a callback after its code was refused or no session was
// created.
func (h *Handler) loginFailed(w http.ResponseWriter, r *http.Request, c *cookies, cb callback, f *loginFailure) error {
	h.clearLoginCookie(w, cb.cookie.Name)
	if f.restart {
		return h.restart(w, r, cb.state, cb.attempt)
	}
	if f.clearAll {
		h.clearLoginCookies(w, c)
	}
	page := *f.answer // fail changes the Error, and other requests share it
	page.audit = h.refusedOnce(cb, page.Code)
	return h.fail(w, r, &page)
}

// completeLogin redeems the code and creates a session. If the session cannot be
// created, it revokes the tokens: a token that no session holds must not stay
// valid.
func (h *Handler) completeLogin(ctx context.Context, c *cookies, cb callback) (keeper.Redemption, error) {
	sent, outcome := time.Now(), keeper.Refreshed
	answer, err := h.Client.RedeemCode(ctx, cb.code, cb.attempt.Verifier, redirectURI(cb.origin, h.PathPrefix))
	if err != nil {
		outcome = outcomeOf(err)
	}
	h.Meter.TokenRequest(outcome, time.Since(sent))
	if err != nil {
		return h.redemptionFailed(ctx, c, cb, err)
	}
	secret, failure := h.createSession(ctx, c, cb, answer)
	if failure != nil {
		h.revokeUnused(ctx, c, answer)
		return keeper.Redemption{Spent: true}, failure
	}
	return keeper.Redemption{Secret: secret}, nil
}

// redemptionFailed returns the consequence of a code exchange without usable
// tokens. If the server refused the code, or its answer was lost, the login is
// restarted. Spent means that the code may have been used, so that the keeper never
// sends it again.
func (h *Handler) redemptionFailed(ctx context.Context, c *cookies, cb callback, err error) (keeper.Redemption, error) {
	failure := &loginFailure{answer: callbackError(fmt.Errorf("redeeming code: %w", err), cb.attempt.ReturnTo)}
	tokenErr, ok := errors.AsType[*oauth.TokenError](err)
	if !ok {
		return keeper.Redemption{}, failure
	}
	// The server has issued tokens in an answer that is otherwise unusable.
	if tokenErr.Granted != nil {
		h.revokeUnused(ctx, c, tokenErr.Granted)
	}
	switch tokenErr.Kind {
	case oauth.Rejected, oauth.Unclear, oauth.Unanswered:
		if failure.restart = cb.state.Restarts < maxRestartsStale; failure.restart {
			h.log(cb.request).Info("login restarted: the code was refused, or its answer was lost", zap.Error(err))
		}
	}
	switch tokenErr.Kind {
	case oauth.Unanswered, oauth.TimedOut, oauth.Malformed:
		return keeper.Redemption{Spent: true}, failure
	}
	return keeper.Redemption{}, failure
}

// createSession creates a session from the tokens of a login.
func (h *Handler) createSession(ctx context.Context, c *cookies, cb callback, answer *oauth.TokenResponse) (seal.Secret, error) {
	a := cb.attempt
	identity, err := h.identify(ctx, answer, oauth.IDTokenExpectation{
		Nonce: a.Nonce, AccessToken: answer.AccessToken, MaxAge: cb.state.Params.maxAge(), Requested: a.Begun,
	})
	if err != nil {
		return seal.Secret{}, &loginFailure{answer: callbackError(err, a.ReturnTo)}
	}
	if a.Completed+1 >= loopLimit {
		return seal.Secret{}, &loginFailure{answer: cookieLoop(a.ReturnTo), clearAll: true}
	}
	identity.UserAgent = cb.request.UserAgent()
	if c.valid {
		identity.Replaces = c.secret // see endReplacedSession
	}
	t := sessionTokens(answer)
	secret, s, err := h.Keeper.Create(ctx, identity, t)
	switch {
	case errors.Is(err, keeper.ErrLoggedOut):
		h.log(cb.request).Info("the authorization server ended a login while it was being completed")
		return seal.Secret{}, &loginFailure{answer: loggedOutDuringLogin(err, a.ReturnTo), restart: cb.state.Restarts < maxRestartsStale}
	case err != nil:
		return seal.Secret{}, &loginFailure{answer: storeUnavailable(err, a.ReturnTo)}
	}
	// The old session ends after the new one is stored: if the store fails, the
	// user keeps the old session.
	h.endReplacedSession(ctx, c, identity, t)
	if t.RefreshToken == "" {
		h.warnNoRefreshToken.Do(func() {
			h.log(cb.request).Warn("the authorization server issued no refresh token: sessions end with their access token",
				zap.Time("token_expires", s.TokenExpires),
				zap.String("likely_cause", "it wants scope offline_access (many servers, some only with prompt=consent), access_type=offline (Google), or refresh tokens enabled for this client"))
		})
	}
	h.Meter.Login("completed")
	h.log(cb.request).Info("login", zap.Stringer("session", s.ID), zap.String("user", printable(s.Subject)), zap.Time("session_ends", s.End))
	h.audit(cb.request, AuditEvent{Kind: AuditLogin, Session: s.ID, User: s.Subject})
	return secret, nil
}
