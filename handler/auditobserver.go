package handler

import (
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// NewAuditObserver returns a function for keeper.Config.Observe that reports the audit
// events of the keeper: the end of each session, and records that do not open. Requests
// may find such a record again and again, so it is reported once a minute.
func NewAuditObserver(audit func(AuditEvent)) func(keeper.Event) {
	var limit logLimiter
	return func(e keeper.Event) {
		a := AuditEvent{Session: e.ID, User: e.Subject}
		switch e.Kind {
		case keeper.EventEnded:
			a.Kind, a.Reason = AuditSessionEnded, string(e.Reason)
		case keeper.EventUnreadable:
			a.Kind, a.Reason = AuditStoreTampered, string(e.Part())
			if _, ok := limit.allowText(a.Kind, a.Reason+" "+e.ID.String()); !ok {
				return
			}
		default:
			return
		}
		a.Reference = NewReference()
		audit(a)
	}
}
