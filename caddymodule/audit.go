package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/session"
)

// auditName is the name of the audit trail's logger below that of the handler:
// http.handlers.oauth_session.audit.
const auditName = "audit"

// auditUserAgent bounds the User-Agent in the audit trail, in bytes.
const auditUserAgent = 160

// audit writes an event to the audit trail, and emits the Caddy event for it. r is nil
// for an event without a request.
func (h *Handler) audit(r *http.Request, e handler.AuditEvent) {
	fields := []zap.Field{zap.String("event", e.Kind), zap.String("reference", e.Reference)}
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, zap.String(name, value))
		}
	}
	add("session", sessionName(e.Session))
	add("user", e.User)
	add("reason", e.Reason)
	add("claim", e.Claim)
	add("found", e.Found)
	if r != nil {
		add("client_ip", clientIP(r))
		add("user_agent", r.UserAgent()[:min(len(r.UserAgent()), auditUserAgent)])
		add("request_id", requestID(r))
	}
	h.auditLogger.Info(e.Kind, fields...)
	h.app.events.auditEvent(h, r, e)
}

// sessionName returns the name of a session in logs, or "" for the zero ID.
func sessionName(id session.ID) string {
	if id == (session.ID{}) {
		return ""
	}
	return id.String()
}

// clientIP returns the address of the client as Caddy trusts it (trusted_proxies).
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// requestID returns Caddy's ID of a request, which an access log can have too:
// {http.request.uuid}.
func requestID(r *http.Request) string {
	if repl := replacerOf(r); repl != nil {
		id, _ := repl.GetString("http.request.uuid")
		return id
	}
	return ""
}

// note adds the reference of an error page, and the request's ID, to the request's line in
// the access log.
func note(r *http.Request, reference string) {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String("oauth_session_reference", reference))
	}
}

// auditRevocation writes a revocation by an operator to the audit trail. The end of each
// session has a line of its own at the site.
func auditRevocation(r *http.Request, q sessionQuery, ended int) {
	servedSites.auditLogger().Info("session_revoked",
		zap.String("event", "session_revoked"), zap.String("reference", handler.NewReference()), zap.String("by", "admin endpoint"),
		zap.String("remote", r.RemoteAddr), zap.String("selector", q.selector()), zap.String("user", q.user),
		zap.String("site", q.site), zap.Int("ended", ended))
}
