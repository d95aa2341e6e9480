package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// AuthorizationPolicy says what becomes of an Authorization header that the
// client sent.
type AuthorizationPolicy int

const (
	// ReplaceAuthorization drops the client's header, always: what the app gets
	// is ours or nothing.
	ReplaceAuthorization AuthorizationPolicy = iota
	// KeepAuthorization lets the client's header through, and adds no token
	// beside it. A session is demanded all the same.
	KeepAuthorization
	// RejectAuthorization answers such a request with 400.
	RejectAuthorization
)

// relay passes a request on with its session's token, or answers for it.
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
	s, err := h.loadSession(r, &c)
	switch {
	case err == nil:
		return h.relaySession(w, r, &c, s, next)
	case errors.Is(err, errTooEarly):
		return h.fail(w, r, tooEarly())
	case errors.Is(err, errTooOld) && isNavigation(r):
		return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r), explicit: true})
	case errors.Is(err, errTooOld):
		return h.unauthenticated(w, r)
	case errors.Is(err, keeper.ErrNoSession):
		var ended *keeper.EndedError
		c.ended = errors.As(err, &ended)
		return h.relayAnonymous(w, r, &c, next)
	default:
		// Neither the store's nor the server's trouble makes anybody anonymous.
		return h.fail(w, r, unavailable(err))
	}
}

// isEchoOrTunnel is for requests that nobody passes on: what echoes our header,
// and what leads past us. Some servers do not mind the case of a method.
func isTraceOrConnect(r *http.Request) bool {
	if r.Method == http.MethodConnect {
		return !isExtendedConnect(r)
	}
	return strings.EqualFold(r.Method, http.MethodTrace) || strings.EqualFold(r.Method, http.MethodConnect)
}

// relayAnonymous is for a request without a session.
func (h *Handler) relayAnonymous(w http.ResponseWriter, r *http.Request, c *cookies, next Next) error {
	if !h.isTrustedPreflight(r) && !h.isOptional(r) {
		if isEarlyData(r) {
			return h.fail(w, r, tooEarly()) // no login begins with what may be a replay
		}
		if c.ended {
			// Only whoever finds the end clears the cookie: the answer to an old
			// one may arrive after a new login has set the next. And only on an
			// answer of ours: the app's may be stored by a cache on the way.
			h.clearSession(w)
			h.clearLoopCount(w, c)
			if isNavigation(r) {
				return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r), cookieReturned: true})
			}
		}
		return h.unauthenticated(w, r)
	}
	p := &relayState{guard: h.guardCookies(w, r)}
	p.guard.policy = cacheByCookie
	h.rewriteHeaders(&p.savedHeaders, r, c, nil)
	defer p.restore()
	p.removePathHeaders(r)
	err := next.ServeHTTP(&p.guard, withoutTrailers(r.Context(), r))
	p.guard.finish()
	return err
}

// passage is what relaying a request takes, in one allocation.
type relayState struct {
	guard      cookieGuard
	attachment keeper.Attachment
	savedHeaders
}

// stripPaths takes off the headers that some apps take for the path, which was
// judged as it stands.
func (p *savedHeaders) removePathHeaders(r *http.Request) {
	p.header = r.Header
	for name := range r.Header {
		if isEquivalentHeader(name, "X-Original-Url") || isEquivalentHeader(name, "X-Rewrite-Url") {
			p.set(name, nil)
		}
	}
}

// withoutTrailers is the request as the next handler gets it. Trailers are left
// out: they come after all checks, and an app may take one for the header of
// the same name. They cannot be taken off the request itself, because net/http
// adds them when it has read the body.
func withoutTrailers(ctx context.Context, r *http.Request) *http.Request {
	r = r.WithContext(ctx)
	r.Trailer = nil
	return r
}

// relaySession is for a request with a session.
func (h *Handler) relaySession(w http.ResponseWriter, r *http.Request, c *cookies, s *keeper.Session, next Next) error {
	if h.isCrossOrigin(r) && changesState(r) {
		return h.fail(w, r, crossOriginError())
	}
	h.SetUser(r, s)
	if len(h.Require) > 0 && !h.meetsRequirements(s.Claims) {
		return h.fail(w, r, h.forbidden(r))
	}
	p := &relayState{guard: h.guardCookies(w, r)}
	p.guard.session, p.guard.secret = s, c.secret
	p.guard.policy = cachePrivate
	if c.hasLoopCount() {
		p.guard.expiredCookie = h.loginCookie(loopCookieName, "", -1).String()
	}
	ctx := h.Keeper.Attach(h.RelayContext(r), s, &p.attachment)
	defer p.attachment.Detach()
	relayed := withoutTrailers(ctx, r)
	var err error
	if h.RetryUnauthorized && !isEarlyData(r) {
		err = h.relayWithRetry(p, relayed, c, s, next)
	} else {
		err = h.relayOnce(&p.guard, &p.savedHeaders, relayed, c, s, next)
	}
	p.guard.finish()
	if err != nil && !p.guard.wroteHeader && errors.Is(context.Cause(ctx), keeper.ErrNoSession) {
		// It ended under way, and the app's answer did not come.
		return h.unauthenticated(w, r)
	}
	return err
}

func (h *Handler) relayOnce(w http.ResponseWriter, p *savedHeaders, r *http.Request, c *cookies, s *keeper.Session, next Next) error {
	h.rewriteHeaders(p, r, c, s)
	defer p.restore()
	return next.ServeHTTP(w, r)
}

// prepared remembers the headers that were changed, so that the request is
// left as it was found, but for our cookies: error routes and log fields that
// look at it afterwards must not see the token.
type savedHeaders struct {
	header http.Header
	// As a rule they are few, and cost nothing then.
	first [3]savedHeader
	count int
	more  []savedHeader
	// credentials is the value of the token's header. Whoever has kept the header
	// keeps this, so it is not used again.
	credentials [1]string
}

type savedHeader struct {
	name   string
	values []string
}

func (p *savedHeaders) set(name string, values []string) {
	saved := savedHeader{name, p.header[name]}
	if p.count < len(p.first) {
		p.first[p.count] = saved
		p.count++
	} else {
		p.more = append(p.more, saved)
	}
	if values == nil {
		delete(p.header, name)
	} else {
		p.header[name] = values
	}
}

// restore goes backwards: the first saved value of a name is the client's.
func (p *savedHeaders) restore() {
	for _, s := range slices.Backward(p.more) {
		s.restore(p.header)
	}
	for _, s := range slices.Backward(p.first[:p.count]) {
		s.restore(p.header)
	}
}

func (s savedHeader) restore(header http.Header) {
	if s.values == nil {
		delete(header, s.name)
	} else {
		header[s.name] = s.values
	}
}

// prepare changes the headers of a request to what the app may see. The
// request itself stays the same one: Caddy's placeholders are bound to it. For
// a request of nobody s is nil.
func (h *Handler) rewriteHeaders(p *savedHeaders, r *http.Request, c *cookies, s *keeper.Session) {
	p.header = r.Header
	removeOwnCookies(r, c)
	removeHopByHop(r, p)
	keep := h.Authorization == KeepAuthorization
	if r.Header["Authorization"] != nil && !keep {
		p.set("Authorization", nil)
	}
	if h.HeaderName != "Authorization" {
		for name := range r.Header {
			if isEquivalentHeader(name, h.HeaderName) {
				p.set(name, nil)
			}
		}
	}
	if s != nil && (h.HeaderName != "Authorization" || r.Header["Authorization"] == nil) {
		p.credentials[0] = h.headerValue(r, s)
		p.set(h.HeaderName, p.credentials[:])
	}
}

func (h *Handler) headerValue(r *http.Request, s *keeper.Session) string {
	if h.HeaderValue == nil {
		return s.Bearer
	}
	return h.HeaderValue(r, s.AccessToken)
}

// stripCookies takes our cookies off a request for good: error routes, which
// get the request back, may lead to another upstream.
func removeOwnCookies(r *http.Request, c *cookies) {
	switch {
	case !c.present && c.logins == nil:
	case len(c.others) == 0:
		delete(r.Header, "Cookie")
	default:
		r.Header["Cookie"] = c.others
	}
}

// oneHopFields are those that a client means for the next proxy, besides
// Connection, Upgrade and TE. Net/http takes Transfer-Encoding and Trailer off
// itself.
var hopByHopFields = [...]string{"Http2-Settings", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection"}

// cleanHopByHop removes the fields that are meant for one hop (RFC 9110, section
// 7.6.1). Connection goes, too, and what it names besides these fields stays. A
// proxy behind us would delete any field that Connection names: the client
// could remove our header, or one that a proxy in front of us or a directive
// has set. An app loses nothing: the client could send such a field without
// naming it.
func removeHopByHop(r *http.Request, p *savedHeaders) {
	webSocket := removeUpgrade(r, p)
	switch connection := r.Header["Connection"]; {
	case webSocket:
		if len(connection) != 1 || !strings.EqualFold(connection[0], "upgrade") {
			p.set("Connection", []string{"Upgrade"})
		}
	case connection != nil:
		p.set("Connection", nil)
	}
	for _, name := range hopByHopFields {
		if r.Header[name] != nil {
			p.set(name, nil)
		}
	}
	if te := r.Header["Te"]; te != nil {
		var kept []string
		if hasMember(te, "trailers") { // gRPC asks for it
			kept = []string{"trailers"}
		}
		p.set("Te", kept)
	}
}

// cleanUpgrade removes any Upgrade but to WebSocket, which would let the client
// talk to the app past us, and reports whether the request asks for WebSocket.
func removeUpgrade(r *http.Request, p *savedHeaders) (webSocket bool) {
	upgrade := r.Header["Upgrade"]
	if upgrade == nil {
		return false
	}
	// Without Connection, an Upgrade header means nothing (RFC 9110, section
	// 7.8), and must not come to mean something behind us.
	if len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && hasMember(r.Header["Connection"], "upgrade") {
		return true
	}
	p.set("Upgrade", nil)
	return false
}

// lists reports whether a comma-separated header field has a member, in any
// case.
func hasMember(lines []string, member string) bool {
	for _, line := range lines {
		for m := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(m, " \t"), member) {
				return true
			}
		}
	}
	return false
}

// checkHeaderName refuses names for the token's header that mean something else
// to a proxy.
func validateHeaderName(name string) error {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Cookie", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return fmt.Errorf("header %q: this header has another use", name)
	}
	if name != "" && !isToken(name) {
		return fmt.Errorf("header %q: give a name of letters, digits, - and _", name)
	}
	return nil
}

// sameToUpstream reports whether an app may take one header name for another:
// CGI and its heirs know neither case nor the difference between -, _ and, some
// of them, anything else that is neither letter nor digit.
func isEquivalentHeader(name, ours string) bool {
	if len(name) != len(ours) {
		return false
	}
	for i := range len(name) {
		a, b := foldHeaderByte(name[i]), foldHeaderByte(ours[i])
		if a != b {
			return false
		}
	}
	return true
}

func foldHeaderByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		return c
	}
	return '-'
}
