package handler

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// NewObserver returns a function for keeper.Config.Observe that logs the events of
// the keeper. It logs a failure at most once a minute for each cause, however many
// sessions are affected. With a nil logger it logs nothing.
func NewObserver(logger *zap.Logger) func(keeper.Event) {
	if logger == nil {
		logger = zap.NewNop()
	}
	var limit logLimiter
	return func(e keeper.Event) {
		id := zap.Stringer("session", e.ID)
		logger := logger
		if e.Subject != "" {
			logger = logger.With(zap.String("user", printable(e.Subject)))
		}
		switch e.Kind {
		case keeper.EventRefreshed:
			logger.Debug("token refreshed", id)
		case keeper.EventEnded:
			logger.Info("session ended", id, zap.String("reason", string(e.Reason)))
		case keeper.EventRefreshFailed:
			logRefreshFailure(logger, &limit, e)
		case keeper.EventUnwritten:
			if _, ok := limit.allowCause("unwritten", e.Err); ok {
				logger.Error("new tokens could not be written to the store: they are served from memory, and the write is repeated", id, zap.Error(e.Err))
			}
		case keeper.EventWritten:
			logger.Info("tokens served from memory have been written to the store", id)
		case keeper.EventIDTokenKept:
			if _, ok := limit.allowCause("id token", e.Err); ok {
				logger.Warn("the refreshed ID token could not be verified: the session continues with the new access token and with its former ID token and claims", id, zap.Error(e.Err))
			}
		case keeper.EventLeaseTaken:
			if limit.allow("lease") {
				logger.Warn("took over a refresh: the instance doing it stopped responding; it was ended, paused or cut off from the store", id)
			}
		case keeper.EventDiscarded:
			logger.Info("new tokens were dropped: the session ended during the refresh", id)
		case keeper.EventUnreadable:
			logUnreadable(logger, &limit, e)
		}
	}
}

// logRefreshFailure logs a refresh without usable tokens, once a minute for each cause.
func logRefreshFailure(logger *zap.Logger, limit *logLimiter, e keeper.Event) {
	cause := "refresh " + e.Outcome.String()
	otherLogin := errors.Is(e.Err, keeper.ErrIdentityChanged)
	switch {
	case otherLogin:
		cause = "other login"
	case e.ReuseSuspected:
		cause = "reuse"
	}
	suppressed, ok := limit.allowCause(cause, e.Err)
	if !ok {
		return
	}
	fields := []zap.Field{zap.Stringer("session", e.ID), zap.Stringer("outcome", e.Outcome), zap.Error(e.Err), zap.Int("suppressed", suppressed)}
	switch {
	case otherLogin:
		logger.Warn("the authorization server answered a refresh with the tokens of another login: the session has ended, and the new tokens are revoked", fields...)
	case e.ReuseSuspected:
		logger.Warn("refresh token refused on its first use: another client may have used it (theft), or the authorization server has revoked the login", fields...)
	case e.Outcome == keeper.Rejected:
		logger.Info("refresh token refused", fields...)
	case e.Outcome == keeper.Misconfigured, e.Outcome == keeper.Malformed:
		logger.Error("refresh failed: the authorization server refuses this client or sends an unusable answer; correct the configuration here or at the server", fields...)
	case e.Outcome == keeper.Unclear:
		logger.Warn("the authorization server refused a refresh and did not say that the token is invalid: it is asked once more before the access token expires, and a second refusal ends the session", fields...)
	default:
		logger.Warn("refresh failed; the session is kept and the refresh is repeated", fields...)
	}
}

// logUnreadable logs that a record cannot be opened, once a minute for each part of
// a record: sessions are lost, or someone else writes to the store.
func logUnreadable(logger *zap.Logger, limit *logLimiter, e keeper.Event) {
	part := string(e.Part())
	if limit.allow("unreadable " + part) {
		logger.Warn("a record in the store cannot be opened and is ignored: it was altered, damaged or partly restored from a backup, or its key was removed",
			zap.Stringer("session", e.ID), zap.String("part", part), zap.Error(e.Err))
	}
}

// logInterval is the least time between two log lines with the same cause.
const logInterval = time.Minute
