package handler

import (
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// NewObserver returns what writes a keeper's events to a log: an operator's
// business at most once a minute for each cause, whatever the number of
// sessions.
func NewObserver(logger *zap.Logger) func(keeper.Event) {
	var limit logLimiter
	return func(e keeper.Event) {
		id := zap.Stringer("session", e.ID)
		switch e.Kind {
		case keeper.EventRefreshed:
			logger.Debug("token refreshed", id)
		case keeper.EventEnded:
			logger.Info("session ended", id, zap.String("reason", string(e.Reason)))
		case keeper.EventRefreshFailed:
			cause := "refresh " + e.Outcome.String()
			if e.ReuseSuspected {
				cause = "reuse"
			}
			if !limit.allow(cause) {
				return
			}
			fields := []zap.Field{id, zap.Stringer("outcome", e.Outcome), zap.Error(e.Err)}
			switch e.Outcome {
			case keeper.Rejected:
				if e.ReuseSuspected {
					logger.Warn("refresh refused on the token's first use: somebody else has used it, or the authorization server has revoked the login", fields...)
					return
				}
				logger.Info("refresh refused", fields...)
			case keeper.Misconfigured, keeper.Malformed:
				logger.Error("refresh failed, and will until the configuration here or at the authorization server is put right", fields...)
			default:
				logger.Warn("refresh failed, the session is kept", fields...)
			}
		case keeper.EventUnwritten:
			if limit.allow("unwritten") {
				logger.Error("new tokens could not be written to the store: they are served from memory until they can", id, zap.Error(e.Err))
			}
		case keeper.EventWritten:
			logger.Info("tokens served from memory have been written to the store", id)
		case keeper.EventIDTokenKept:
			if limit.allow("id token") {
				logger.Warn("the refreshed ID token could not be checked: the session goes on with the new access token, and with the ID token and the claims before it", id, zap.Error(e.Err))
			}
		case keeper.EventLeaseTaken:
			if limit.allow("lease") {
				logger.Warn("refreshing in place of another instance, which fell silent in the midst of it: it was ended, stood still or lost the store", id)
			}
		case keeper.EventDiscarded:
			logger.Info("new tokens were dropped: the session had ended meanwhile", id)
		case keeper.EventUnreadable:
			logUnreadable(logger, &limit, e)
		}
	}
}

// logUnreadable is a line a minute for each part of a record: an operator has to
// learn that sessions are lost, or that somebody writes to the store.
func logUnreadable(logger *zap.Logger, limit *logLimiter, e keeper.Event) {
	part := string(e.Part())
	if limit.allow("unreadable " + part) {
		logger.Warn("what the store has does not open, and counts for nothing: it was altered, damaged or partly restored from a backup, or its key was dropped",
			zap.Stringer("session", e.ID), zap.String("part", part), zap.Error(e.Err))
	}
}

// logEvery is how often the same cause is worth a line.
const logInterval = time.Minute
