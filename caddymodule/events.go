package caddymodule

import (
	"context"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// Names of the Caddy events. Their data has the members of the audit trail: site, session,
// user, reason, client_ip, reference. Empty ones are left out.
const (
	eventLogin     = "oauth_session.login"     // a session has begun
	eventRefreshed = "oauth_session.refreshed" // a session has new tokens
	eventEnded     = "oauth_session.ended"     // a session has ended
	eventLogout    = "oauth_session.logout"    // a user has signed out, here or at the server
)

var eventsOfAudit = map[string]string{
	handler.AuditLogin:              eventLogin,
	handler.AuditSessionEnded:       eventEnded,
	handler.AuditLogout:             eventLogout,
	handler.AuditBackchannelLogout:  eventLogout,
	handler.AuditFrontchannelLogout: eventLogout,
}

// maxQueuedEvents bounds the events that wait for slow handlers. Above it, events are lost.
const maxQueuedEvents = 1000

// eventQueue emits events one after the other. Caddy runs the handlers of an event while
// it is emitted, and a login must not wait for them.
type eventQueue struct {
	app    *caddyevents.App
	queue  chan func()
	ctx    context.Context //nolint:containedctx // ends with the configuration
	cancel context.CancelFunc
	lost   sync.Once
	logger *zap.Logger
}

func newEventQueue(ctx caddy.Context) (*eventQueue, error) {
	module, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	q := &eventQueue{app: module.(*caddyevents.App), queue: make(chan func(), maxQueuedEvents), logger: ctx.Logger()}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q, nil
}

func (q *eventQueue) start() {
	go func() {
		for {
			select {
			case emit := <-q.queue:
				q.run(emit)
			case <-q.ctx.Done():
				return
			}
		}
	}()
}

// run emits one event. A panic of its handler would end the process here: no server
// recovers it, as one does in the goroutine of a request.
func (q *eventQueue) run(emit func()) {
	defer func() {
		if cause := recover(); cause != nil {
			q.logger.Error("a handler of an event failed", zap.Any("cause", cause), zap.Stack("stack"))
		}
	}()
	emit()
}

func (q *eventQueue) stop() { q.cancel() }

// auditEvent emits the Caddy event for an audit event, if there is one.
func (q *eventQueue) auditEvent(h *Handler, r *http.Request, e handler.AuditEvent) {
	name := eventsOfAudit[e.Kind]
	if name == "" || !q.app.ShouldEmit(name) {
		return
	}
	data := map[string]any{"site": h.label, "reference": e.Reference}
	add := func(key, value string) {
		if value != "" {
			data[key] = value
		}
	}
	add("session", sessionName(e.Session))
	add("user", e.User)
	add("reason", e.Reason)
	if r != nil {
		add("client_ip", clientIP(r))
	}
	q.emit(h, name, data)
}

// refreshed emits the event of a refresh.
func (q *eventQueue) refreshed(h *Handler, e keeper.Event) {
	if q.app.ShouldEmit(eventRefreshed) {
		q.emit(h, eventRefreshed, map[string]any{"site": h.label, "session": sessionName(e.ID), "user": e.Subject})
	}
}

func (q *eventQueue) emit(h *Handler, name string, data map[string]any) {
	select {
	case q.queue <- func() { q.app.Emit(h.ctx, name, data) }:
	default:
		q.lost.Do(func() {
			q.logger.Warn("events are lost: their handlers are slower than logins and refreshes", zap.String("event", name))
		})
	}
}
