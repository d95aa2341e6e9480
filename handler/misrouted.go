package handler

import (
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"
)

// A login can be completed only if its callback reaches the Handler that began it. In
// Caddy, a directive inside `handle /app/*` begins logins for the area, but something
// else gets the callbacks unless path_prefix is within the area. The Handler cannot see
// a request that does not reach it, so it looks for the traces of such a request.

// warnOfMissingCallback logs that a browser begins a login for the same page a second
// time, while no callback at all has reached this Handler. The user may also have left
// the sign-in page, so this is only a hint.
func (h *Handler) warnOfMissingCallback(c *cookies, returnTo, redirectURI string) {
	if h.callbackArrived.Load() || c.count > 0 {
		return // callbacks arrive, or the browser has completed a login
	}
	for _, login := range c.logins {
		a, ok := h.openLoginAttempt(login)
		if !ok || a.ReturnTo != returnTo || !h.logLimiter.allow("callback missing") {
			continue
		}
		h.Logger.Warn("a browser begins a login for the same page again, and no callback has reached this oauth_session directive yet: check that requests for redirect_uri reach it. "+
			"If the directive is inside a handle, handle_path or route block, give it a path_prefix within the path of the block",
			zap.String("redirect_uri", redirectURI))
	}
}

// warnOfStrayCallback logs that the callback of a login has arrived as a request for an
// ordinary page. The directive that began the login did not get it.
func (h *Handler) warnOfStrayCallback(r *http.Request) {
	u := h.OriginalURL(r)
	if !strings.Contains(u.RawQuery, "state=") {
		return
	}
	if c := h.parseCookies(r); c.hasLogin(u.Query().Get("state")) && h.logLimiter.allow("stray callback") {
		h.log(r).Warn("the callback of a login has reached this oauth_session directive as an ordinary page: another directive has begun the login. "+
			"If that one is inside a handle, handle_path or route block, give it a path_prefix within the path of the block",
			zap.String("path", printable(u.Path)), zap.String("path_prefix", h.PathPrefix))
	}
}

// hasLogin reports whether the browser sends a login cookie for a state parameter. The
// cookie may be that of another Handler.
func (c *cookies) hasLogin(state string) bool {
	for _, login := range c.logins {
		if state != "" && login.Name == loginCookieName(state) {
			return true
		}
	}
	return false
}

// unknownState is the cause for which a state parameter does not open here. If the
// browser has a login cookie for it, another Handler on this host has made both.
func (h *Handler) unknownState(r *http.Request, state string) error {
	if c := h.parseCookies(r); c.hasLogin(state) {
		return errors.New("another oauth_session directive on this host, or an earlier key, has made the state parameter: each login needs a path_prefix of its own")
	}
	return errors.New("the state parameter is missing or was not made here")
}

// unknownEndpoint answers a request below the path prefix that is for no endpoint. Its
// sender may have expected the app, or another Handler.
func (h *Handler) unknownEndpoint(r *http.Request) *Error {
	if h.logLimiter.allow("unknown endpoint") {
		h.log(r).Info("no endpoint has this address below path_prefix: if the app or another oauth_session directive should answer it, "+
			"check path_prefix, and the handle, handle_path or route block around the directive",
			zap.String("path", printable(h.OriginalURL(r).Path)), zap.String("path_prefix", h.PathPrefix))
	}
	e := notFound()
	e.Detail = "There is no such page: addresses below " + h.PathPrefix + " are for signing in. If the app should answer here, the operator of this site has to check path_prefix, and the handle block around oauth_session."
	return e
}
