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

// cookieGuard passes an app's answer on, but removes Set-Cookie lines for the
// module's cookies. If an attacker could make the app set such a cookie, the
// attacker could end a session, or replace it by the attacker's own. It also limits
// which caches may share the answer (see sharedcache.go).
//
// It reads only the header, before that is written, and the trailers at the end.
// Decision 0012 weighs its cost.
type cookieGuard struct {
	http.ResponseWriter
	handler *Handler
	request *http.Request
	// header is the header of the underlying writer. Calling its Header method
	// later would make net/http copy the map.
	header      http.Header
	wroteHeader bool // the header has been written
	disabled    bool // a later Handler has taken the request over
	// session is the session of the request and secret its secret. They are unset
	// without a session.
	session *keeper.Session
	secret  seal.Secret
	// attachment binds the request to its session. Nil without a session.
	attachment *keeper.Attachment
	// cookies has the lines of the Cookie header as they arrived.
	cookies []string

	policy cachePolicy
	// private holds the value of Cache-Control, which saves an allocation.
	private [1]string
	// loop changes the loop count with the answer. It is nil for a request without
	// a count.
	loop *loopWatch
}

const (
	setCookie        = "Set-Cookie"
	setCookieTrailer = http.TrailerPrefix + setCookie
)

// guardCookies returns a guard for the answer to a request.
func (h *Handler) guardCookies(w http.ResponseWriter, r *http.Request) cookieGuard {
	return cookieGuard{ResponseWriter: w, handler: h, request: r, header: w.Header(), cookies: r.Header["Cookie"]}
}

// finish checks what net/http writes after the handler has returned: trailers, and
// the header of an answer without a body.
func (g *cookieGuard) finish() {
	if !g.wroteHeader {
		g.updateLoopCount(0)
	}
	g.removeForgedIn(setCookie)
	g.removeForgedIn(setCookieTrailer)
	if !g.wroteHeader {
		g.applyCachePolicy(http.StatusOK)
	}
}

// removeForgedIn removes forged lines from a field. It allocates nothing if there
// are none.
func (g *cookieGuard) removeForgedIn(field string) {
	if g.disabled {
		return
	}
	if slices.ContainsFunc(g.header[field], g.isForged) {
		g.removeForged(field)
	}
}

// isForged reports whether the app must not set a cookie. An earlier Handler changes
// or deletes the loop count through this writer. An app may delete it, too, and does
// no harm with that.
func (g *cookieGuard) isForged(line string) bool {
	return g.handler.isOwnCookie(g.request, line) && !strings.HasPrefix(line, loopCookieName+"=;") && !g.isLoopLine(line)
}

// removeForged removes the forged lines from a field, and logs a warning.
func (g *cookieGuard) removeForged(field string) {
	// The slice may belong to the app, which may use it for all answers.
	kept := slices.DeleteFunc(slices.Clone(g.header[field]), g.isForged)
	if len(kept) == 0 {
		delete(g.header, field)
	} else {
		g.header[field] = kept
	}
	if g.handler.logLimiter.allow("app sets our cookie") {
		g.handler.Logger.Warn("the app tried to set a session or login cookie: the cookie was removed from the answer",
			zap.String("path", printable(g.handler.OriginalURL(g.request).Path)))
	}
}

// cookieWhitespace has the characters that net/http or a browser trims or ignores.
const cookieWhitespace = " \t\r\n\v\f\x00"

// isOwnCookie reports whether a Set-Cookie line sets a session cookie or a login
// cookie. It reads the name as browsers do (RFC 6265bis, section 5.6): up to the
// first =, without the white space around it. A browser sends a cookie without a
// name as its bare value, so the value then counts as the name.
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

// cookieDomain returns the Domain attribute of a Set-Cookie line. The last one
// counts (RFC 6265bis, section 5.7).
func cookieDomain(attributes string) (domain string) {
	for attribute := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(attribute, "=")
		if strings.EqualFold(strings.Trim(name, cookieWhitespace), "domain") {
			domain = strings.Trim(value, cookieWhitespace)
		}
	}
	return strings.TrimPrefix(domain, ".")
}

// WriteHeader implements http.ResponseWriter. Informational answers (1xx) may come
// before the final one. They are checked, too.
func (g *cookieGuard) WriteHeader(status int) {
	if !g.wroteHeader {
		g.removeForgedIn(setCookie)
		g.wroteHeader = status >= http.StatusOK || status == http.StatusSwitchingProtocols
		if g.wroteHeader {
			g.updateLoopCount(status)
			g.noteStream(status)
		}
		if status >= http.StatusOK {
			g.applyCachePolicy(status)
		}
	}
	g.ResponseWriter.WriteHeader(status)
}

// beforeWrite prepares the header if it has not been written yet.
func (g *cookieGuard) beforeWrite() {
	if !g.wroteHeader {
		g.removeForgedIn(setCookie)
		g.updateLoopCount(http.StatusOK)
		g.applyCachePolicy(http.StatusOK)
		g.wroteHeader = true
		g.noteStream(http.StatusOK)
	}
}

// Write implements http.ResponseWriter.
func (g *cookieGuard) Write(b []byte) (int, error) {
	g.beforeWrite()
	return g.ResponseWriter.Write(b)
}

// ReadFrom implements io.ReaderFrom. It lets the underlying writer send a file from
// the kernel to the socket.
func (g *cookieGuard) ReadFrom(r io.Reader) (int64, error) {
	g.beforeWrite()
	return io.Copy(g.ResponseWriter, r)
}

// FlushError implements the method that http.ResponseController calls.
func (g *cookieGuard) FlushError() error {
	g.beforeWrite()
	return http.NewResponseController(g.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (g *cookieGuard) Flush() { _ = g.FlushError() }

// Hijack implements http.Hijacker.
func (g *cookieGuard) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	g.wroteHeader = true
	g.noteStream(http.StatusSwitchingProtocols)
	return http.NewResponseController(g.ResponseWriter).Hijack()
}

// Push implements http.Pusher.
func (g *cookieGuard) Push(target string, options *http.PushOptions) error {
	if pusher, ok := g.ResponseWriter.(http.Pusher); ok {
		return pusher.Push(target, options)
	}
	return http.ErrNotSupported
}

// Unwrap lets http.ResponseController set deadlines.
func (g *cookieGuard) Unwrap() http.ResponseWriter { return g.ResponseWriter }
