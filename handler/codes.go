package handler

import "slices"

// RefusalCodes returns the codes of all errors, for Meter.Refusal.
func RefusalCodes() []string { return slices.Clone(refusalCodes) }

var refusalCodes = []string{
	"access_denied", "ambiguous_path", "authorization_not_accepted", "bad_request", "cookies_blocked", "cross_origin", "forbidden", "groups_overage",
	"insecure_origin", "internal", "invalid_logout", "logged_out", "login_busy", "login_expired", "login_failed", "login_in_other_tab", "login_loop",
	"login_refused", "login_required", "login_unavailable", "logout_unavailable", "method_not_allowed", "misconfigured", "nested_logins",
	"not_found", "not_refreshable", "public_origin", "session_limit", "session_revoked", "temporarily_unavailable", "too_early",
}

// LoginResults returns the results of a login, for Meter.Login.
func LoginResults() []string { return slices.Clone(loginResults) }

var loginResults = []string{
	"completed", "restarted",
	"access_denied", "cookies_blocked", "logged_out", "login_busy", "login_expired", "login_failed", "login_in_other_tab", "login_loop",
	"login_refused", "login_unavailable", "misconfigured", "temporarily_unavailable",
}
