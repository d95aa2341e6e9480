package handler

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// cookieGuard passes everything on that an app answers but cookies of ours: an
// app that can be brought to set a cookie would let others end a session, or
// put theirs in its place. It also limits which caches may share the answer
// (sharedcache.go). It looks at the header alone, before it is written
// and, for trailers, at the end. Decision 0012 says why it is worth its cost.
type cookieGuard struct {
	http.ResponseWriter
	handler *Handler
	request *http.Request
	// header is that of the writer below. Asking for it later would make net/http
	// copy it.
	header      http.Header
	wroteHeader bool // the header is out
	disabled    bool // a Handler behind has taken over
	// session is that of the request, and secret its secret. Nil: it has none.
	session *keeper.Session
	secret  seal.Secret

	policy cachePolicy
	// private is the value of Cache-Control, to save an allocation.
	private [1]string
	// expires is a line of ours that goes along with the app's answer: it deletes
	// a cookie that has done its work. Empty: there is none.
	expiredCookie string
}

const (
	setCookie        = "Set-Cookie"
	setCookieTrailer = http.TrailerPrefix + setCookie
)

func (h *Handler) guardCookies(w http.ResponseWriter, r *http.Request) cookieGuard {
	return cookieGuard{ResponseWriter: w, handler: h, request: r, header: w.Header()}
}

// finish looks at what is written after the handler: trailers, and the header
// of an answer without a body.
func (g *cookieGuard) finish() {
	if !g.wroteHeader {
		g.addExpiredCookie()
	}
	g.removeForgedIn(setCookie)
	g.removeForgedIn(setCookieTrailer)
	if !g.wroteHeader {
		g.applyCachePolicy()
	}
}

// clean costs a look-up where an app sets no cookie.
func (g *cookieGuard) removeForgedIn(field string) {
	if g.disabled {
		return
	}
	if slices.ContainsFunc(g.header[field], g.isForged) {
		g.removeForged(field)
	}
}

// isForged does not mind who ends the count of logins: this Handler, one before
// it, or the app, which does no harm with it.
func (g *cookieGuard) isForged(line string) bool {
	return g.handler.isOwnCookie(g.request, line) && !strings.HasPrefix(line, loopCookieName+"=;")
}

// expire adds the line of ours. A cache on the way must not keep the answer with
// it, whatever the app says about others.
func (g *cookieGuard) addExpiredCookie() {
	if g.expiredCookie == "" || g.disabled {
		return
	}
	g.header[setCookie] = append(slices.Clone(g.header[setCookie]), g.expiredCookie)
	caching := append(slices.Clone(g.header["Cache-Control"]), "private")
	g.header["Cache-Control"] = []string{strings.Join(caching, ", ")}
}

func (g *cookieGuard) removeForged(field string) {
	// A copy: the slice may be the app's, and the same for all answers.
	kept := slices.DeleteFunc(slices.Clone(g.header[field]), g.isForged)
	if len(kept) == 0 {
		delete(g.header, field)
	} else {
		g.header[field] = kept
	}
	if g.handler.logLimiter.allow("app sets our cookie") {
		g.handler.Logger.Warn("the app set a cookie of the name of a session's or a login's: it was taken off the answer",
			zap.String("path", printable(g.handler.OriginalURL(g.request).Path)))
	}
}

// cookieBlanks are what net/http and browsers make white space of, or ignore.
const cookieWhitespace = " \t\r\n\v\f\x00"

// isOwnCookie reads the name in a Set-Cookie line as browsers do (RFC 6265bis,
// section 5.6): up to the first =, without the white space around it. A cookie
// without a name comes back as its bare value, so that counts as a name too.
func (h *Handler) isOwnCookie(r *http.Request, line string) bool {
	pair, attributes, _ := strings.Cut(line, ";")
	name, _, _ := strings.Cut(strings.TrimLeft(pair, cookieWhitespace+"="), "=")
	name = strings.TrimRight(name, cookieWhitespace)
	if name == h.Cookie.Name || strings.HasPrefix(name, loginCookiePrefix) {
		return true
	}
	if h.OtherCookies == nil {
		return false
	}
	if slices.Contains(h.OtherCookies(r, ""), name) {
		return true
	}
	domain := cookieDomain(attributes)
	return domain != "" && slices.Contains(h.OtherCookies(r, domain), name)
}

// cookieDomain returns the Domain of a Set-Cookie line: the last one counts (RFC
// 6265bis, section 5.7).
func cookieDomain(attributes string) (domain string) {
	for attribute := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(attribute, "=")
		if strings.EqualFold(strings.Trim(name, cookieWhitespace), "domain") {
			domain = strings.Trim(value, cookieWhitespace)
		}
	}
	return strings.TrimPrefix(domain, ".")
}

// WriteHeader implements http.ResponseWriter. Any number of informational
// answers may come before the last one.
func (g *cookieGuard) WriteHeader(status int) {
	if !g.wroteHeader {
		g.removeForgedIn(setCookie)
		g.wroteHeader = status >= http.StatusOK || status == http.StatusSwitchingProtocols
		if g.wroteHeader {
			g.addExpiredCookie()
		}
		if status >= http.StatusOK {
			g.applyCachePolicy()
		}
	}
	g.ResponseWriter.WriteHeader(status)
}

// begin is for what writes a header that was not written yet.
func (g *cookieGuard) beforeWrite() {
	if !g.wroteHeader {
		g.removeForgedIn(setCookie)
		g.addExpiredCookie()
		g.applyCachePolicy()
		g.wroteHeader = true
	}
}

// Write implements http.ResponseWriter.
func (g *cookieGuard) Write(b []byte) (int, error) {
	g.beforeWrite()
	return g.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of the writer below: a file goes from the kernel
// to the socket.
func (g *cookieGuard) ReadFrom(r io.Reader) (int64, error) {
	g.beforeWrite()
	return io.Copy(g.ResponseWriter, r)
}

// FlushError is what an http.ResponseController looks for.
func (g *cookieGuard) FlushError() error {
	g.beforeWrite()
	return http.NewResponseController(g.ResponseWriter).Flush()
}

// Flush is FlushError for those who ask for an http.Flusher.
func (g *cookieGuard) Flush() { _ = g.FlushError() }

// Hijack hands over the connection to those who ask for an http.Hijacker.
func (g *cookieGuard) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	g.wroteHeader = true
	return http.NewResponseController(g.ResponseWriter).Hijack()
}

// Push implements http.Pusher.
func (g *cookieGuard) Push(target string, options *http.PushOptions) error {
	if pusher, ok := g.ResponseWriter.(http.Pusher); ok {
		return pusher.Push(target, options)
	}
	return http.ErrNotSupported
}

// Unwrap lets an http.ResponseController set deadlines.
func (g *cookieGuard) Unwrap() http.ResponseWriter { return g.ResponseWriter }
