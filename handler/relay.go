package handler

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// relay passes a request on with the access token of its session. Without a session
// the request is answered, or passed on without a user where that is allowed.
func (h *Handler) relay(w http.ResponseWriter, r *http.Request, next Next) error {
	if isTraceOrConnect(r) {
		return h.fail(w, r, &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "Method not allowed", Detail: "This method is not relayed."})
	}
	if isEarlyData(r) && (isUnsafeMethod(r.Method) || isWebSocket(r)) {
		return h.fail(w, r, tooEarly())
	}
	if h.Authorization == RejectAuthorization && r.Header["Authorization"] != nil {
		return h.fail(w, r, &Error{Status: http.StatusBadRequest, Code: "authorization_not_accepted", Title: "Authorization is not accepted", Detail: "Send this request without an Authorization header: the session provides it."})
	}
	c := h.readCookies(r)
	switch {
	case c.err != nil:
		return h.fail(w, r, unavailable(c.err))
	case !c.valid:
		return h.relayAnonymous(w, r, &c, next)
	}
	c.passive = h.IdleIgnore != nil && h.IdleIgnore(r)
	s, err := h.loadSession(r, &c)
	switch {
	case err == nil:
		return h.relaySession(w, r, &c, s, next)
	case errors.Is(err, errTooEarly):
		return h.fail(w, r, tooEarly())
	case errors.Is(err, errTooOld) && h.isNavigation(r):
		return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r), explicit: true})
	case errors.Is(err, errTooOld):
		return h.unauthenticated(w, r)
	case errors.Is(err, keeper.ErrNoSession):
		var ended *keeper.EndedError
		c.ended = errors.As(err, &ended)
		return h.relayAnonymous(w, r, &c, next)
	default:
		// A failure of the store or of the authorization server must not make the
		// request anonymous: the user would lose the session, and an optional page
		// would show the content for visitors.
		return h.fail(w, r, unavailable(err))
	}
}

// isTraceOrConnect reports whether a request has a method that must not be relayed.
// The answer to TRACE repeats the request's header, access token included. CONNECT
// opens a tunnel past all checks. Methods are compared in any case, because some
// servers ignore the case.
func isTraceOrConnect(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return !isExtendedConnect(r)
	}
	return strings.EqualFold(r.Method, http.MethodTrace) || strings.EqualFold(r.Method, http.MethodConnect)
}

// relayAnonymous handles a request without a session. It relays optional paths and
// CORS preflights, and answers everything else.
func (h *Handler) relayAnonymous(w http.ResponseWriter, r *http.Request, c *cookies, next Next) error {
	if !h.isTrustedPreflight(r) && !h.isOptional(r) {
		if isEarlyData(r) {
			return h.fail(w, r, tooEarly()) // a replayed request must not begin a login
		}
		if c.ended {
			// Only the request that finds the end of the session clears the cookie. A
			// later request with the same cookie may be answered after a new login
			// has set the next cookie, and would delete that. The cookie is also not
			// cleared on answers of the app, which a cache may store.
			h.clearSession(w)
			if h.isNavigation(r) {
				return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r), ended: true})
			}
			h.clearLoopCount(w, c)
		}
		return h.withoutSession(w, r, c)
	}
	p := &relayState{guard: h.guardCookies(w, r)}
	p.guard.policy = cacheByCookie
	p.guard.loop = h.watchLoop(r, c)
	removeOwnCookies(r, c)
	if removed := h.rewriteHeaders(&p.savedHeaders, r, nil); removed != nil {
		h.logRemovedAuthorization(removed)
	}
	defer p.restore()
	p.removePathHeaders(r)
	err := next.ServeHTTP(&p.guard, withoutTrailers(withoutUser(r.Context()), r))
	p.guard.loop.failed(err)
	p.guard.finish()
	return err
}

// relayState is the memory that relaying a request needs, in one allocation.
type relayState struct {
	guard      cookieGuard
	attachment keeper.Attachment
	context    userContext
	savedHeaders
}

// withoutTrailers returns the request for the next handler. Trailers are left out:
// they arrive after all checks, and an app may treat a trailer like the header of
// the same name. They cannot be removed from the original request, because net/http
// adds them to it at the end of the body.
func withoutTrailers(ctx context.Context, r *http.Request) *http.Request {
	r = r.WithContext(ctx)
	r.Trailer = nil
	return r
}

// relaySession relays a request with the access token of a session. The request's
// context ends with the session.
func (h *Handler) relaySession(w http.ResponseWriter, r *http.Request, c *cookies, s *keeper.Session, next Next) error {
	if h.isCrossOrigin(r) && changesState(r) {
		return h.fail(w, r, crossOriginError())
	}
	p := &relayState{context: userContext{user: userOf(s)}}
	// Set the user before the requirements are checked, so that an error page and
	// the access log can show the refused user.
	h.SetUser(r, &p.context.user)
	if unmet := h.unmetRequirement(s.Claims); unmet != nil {
		return h.fail(w, r, h.forbidden(r, s, unmet))
	}
	p.guard = h.guardCookies(w, r)
	p.guard.session, p.guard.secret = s, c.secret
	p.guard.policy = cachePrivate
	p.guard.loop = h.watchLoop(r, c)
	removeOwnCookies(r, c)
	p.context.Context = h.RelayContext(r)
	p.guard.attachment = &p.attachment
	ctx := h.attach(p, c, s)
	defer p.attachment.Detach()
	relayed := withoutTrailers(ctx, r)
	var err error
	// A request in early data never causes a refresh (see loadSession).
	if h.RetryUnauthorized && !isEarlyData(r) {
		err = h.relayWithRetry(p, relayed, c, s, next)
	} else {
		err = h.relayOnce(&p.guard, relayed, &p.savedHeaders, s, next)
	}
	p.guard.loop.failed(err)
	p.guard.finish()
	if err != nil && !p.guard.wroteHeader && errors.Is(context.Cause(ctx), keeper.ErrNoSession) {
		// The session ended during the request, and the app has not answered.
		return h.withoutSession(w, r, c)
	}
	return err
}

// attach binds a request in progress to its session.
func (h *Handler) attach(p *relayState, c *cookies, s *keeper.Session) context.Context {
	if c.passive {
		return h.Keeper.Attach(&p.context, s, &p.attachment)
	}
	return h.Keeper.AttachUse(&p.context, c.secret, s, &p.attachment)
}

// relayOnce calls the next handler with the rewritten headers, and restores the
// headers when it returns.
func (h *Handler) relayOnce(w http.ResponseWriter, r *http.Request, saved *savedHeaders, s *keeper.Session, next Next) error {
	if removed := h.rewriteHeaders(saved, r, s); removed != nil && !isNested(w) {
		h.logRemovedAuthorization(removed)
	}
	defer saved.restore()
	return next.ServeHTTP(w, r)
}
