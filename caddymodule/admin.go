package caddymodule

import "github.com/caddyserver/caddy/v2"

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI adds to Caddy's admin endpoint:
//
//	GET /oauth_session/ready        200 if users of all sites can log in, else 503
//	GET /oauth_session/sessions     sessions; parameters site, user, cursor, limit, count
//	DELETE /oauth_session/sessions  ends sessions by id, user or older_than; parameter site
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.oauth_session", New: func() caddy.Module { return new(AdminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/oauth_session/ready", Handler: caddy.AdminHandlerFunc(serveReady)},
		{Pattern: "/oauth_session/sessions", Handler: caddy.AdminHandlerFunc(serveSessions)},
	}
}

// Interface guards
var _ caddy.AdminRouter = AdminAPI{}
