package handler

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// AuthorizationPolicy selects how a Handler treats an Authorization header of the
// client.
type AuthorizationPolicy int

// Authorization policies.
const (
	// ReplaceAuthorization removes the client's header from every request. The app
	// gets the session's token or no token.
	ReplaceAuthorization AuthorizationPolicy = iota
	// KeepAuthorization lets the client's header through, and adds no token to such
	// a request. The request still needs a session.
	KeepAuthorization
	// RejectAuthorization answers such a request with status 400.
	RejectAuthorization
)

// savedHeaders remembers the headers that were changed, so that they can be
// restored when the next handler has returned: error routes and log fields that read
// the request afterwards must not see the token. Cookies are not restored.
type savedHeaders struct {
	header http.Header
	// The first three need no allocation. Few requests need more.
	first [3]savedHeader
	count int
	more  []savedHeader
	// credentials is the value of the token's header. A second try of the request
	// needs another savedHeaders, because the first app may still hold this value.
	credentials [1]string
}

type savedHeader struct {
	name   string
	values []string // nil: the header was not there
}

// set changes a header, or deletes it if values is nil.
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

// restore undoes all changes. It goes backwards, because the first saved value of a
// name is the client's.
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

// removePathHeaders removes the headers that some apps read instead of the path
// (Symfony, IIS rewriting). The matchers have checked the path only.
func (p *savedHeaders) removePathHeaders(r *http.Request) {
	p.header = r.Header
	for name := range r.Header {
		if isEquivalentHeader(name, "X-Original-Url") || isEquivalentHeader(name, "X-Rewrite-Url") {
			p.set(name, nil)
		}
	}
}

// rewriteHeaders changes the headers of a request to those that the app may see. It
// changes the request itself and no copy, because Caddy's placeholders are bound to
// it. Without a session s is nil, and the app gets no token. It returns the values of
// Authorization that it has removed, or nil.
func (h *Handler) rewriteHeaders(p *savedHeaders, r *http.Request, s *keeper.Session) (removed []string) {
	p.header = r.Header
	removeHopByHop(r, p)
	if values := r.Header["Authorization"]; values != nil && h.Authorization != KeepAuthorization {
		p.set("Authorization", nil)
		removed = values
	}
	// No spelling of the token's header may come from the client. Authorization needs
	// no loop: it has one word, and net/http has already canonicalized its case.
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
	return removed
}

func (h *Handler) headerValue(r *http.Request, s *keeper.Session) string {
	if h.HeaderValue == nil {
		return s.Bearer
	}
	return h.HeaderValue(r, s.AccessToken)
}

// removeOwnCookies removes the module's cookies from a request for good: an error
// route gets the request afterwards, and may send it to another upstream.
func removeOwnCookies(r *http.Request, c *cookies) {
	switch {
	case !c.present && c.logins == nil:
	case len(c.others) == 0:
		delete(r.Header, "Cookie")
	default:
		r.Header["Cookie"] = c.others
	}
}

// hopByHopFields are the fields for one hop, apart from Connection, Upgrade and TE.
// Transfer-Encoding and Trailer are missing because net/http removes them.
var hopByHopFields = [...]string{"Http2-Settings", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection"}

// removeHopByHop removes the fields that are meant for one hop (RFC 9110, section
// 7.6.1). It removes Connection, but not the fields that Connection names.
//
// A later proxy deletes every field that Connection names. With that a client could
// delete the token's header, or a header that an earlier proxy or directive has set.
// Keeping the named fields is safe: the client could have sent them without naming
// them.
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
		if hasMember(te, "trailers") { // gRPC requires it
			kept = []string{"trailers"}
		}
		p.set("Te", kept)
	}
}

// removeUpgrade removes an Upgrade to any protocol but WebSocket: the app would
// switch to a connection that no check covers, such as h2c. It reports whether the
// request asks for WebSocket.
func removeUpgrade(r *http.Request, p *savedHeaders) (webSocket bool) {
	upgrade := r.Header["Upgrade"]
	if upgrade == nil {
		return false
	}
	// An Upgrade header without Connection has no effect (RFC 9110, section 7.8). It
	// is removed, because a later proxy could add the Connection header.
	if len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") && hasMember(r.Header["Connection"], "upgrade") {
		return true
	}
	p.set("Upgrade", nil)
	return false
}

// hasMember reports whether a comma-separated header field has a member, in any
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

// validateHeaderName refuses a name for the token's header that has another meaning
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

// isEquivalentHeader reports whether an app may take one header name for the other.
// CGI and its successors ignore the case and do not distinguish - from _, and some
// map every character that is neither letter nor digit to _.
func isEquivalentHeader(name, other string) bool {
	if len(name) != len(other) {
		return false
	}
	for i := range len(name) {
		if foldHeaderByte(name[i]) != foldHeaderByte(other[i]) {
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
