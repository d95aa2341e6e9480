package handler

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// CheckOrigin refuses what is not exactly the scheme and host of a site that a
// login can be kept for.
func CheckOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin {
		return fmt.Errorf("%q is not an origin: give scheme and host alone, such as https://app.example.com", origin)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if isLoopback(u.Hostname()) {
			return nil
		}
		return &insecureOriginError{origin}
	}
	return fmt.Errorf("%q: the scheme must be https", origin)
}

// insecureOriginError: browsers send Secure cookies over https and to loopback
// hosts only, so that every login would be lost again.
type insecureOriginError struct{ origin string }

func (e *insecureOriginError) Error() string {
	return fmt.Sprintf("%s is plain http, where browsers keep no session: set base_url to the https URL that browsers use, or list the proxy in front in trusted_proxies so that its X-Forwarded-Proto counts", e.origin)
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// origin returns the site's public origin, where a login can be kept.
func (h *Handler) origin(r *http.Request) (string, *Error) {
	origin, err := h.Origin(r)
	if err == nil {
		err = CheckOrigin(origin)
	}
	if err == nil {
		return origin, nil
	}
	e := &Error{Status: http.StatusInternalServerError, Code: "public_origin", Title: "Sign-in is not set up correctly", Detail: "The public address of this site is not known.", Err: err}
	var insecure *insecureOriginError
	if errors.As(err, &insecure) {
		e.Code = "insecure_origin"
		e.Detail = "This site is reached over plain http, where a browser keeps no session. Its operator can set base_url to the https address, or trusted_proxies if a proxy in front speaks https."
	}
	return "", e
}

// isUnsafe: everything that is not known to be safe, in exactly this spelling
// (RFC 9110, section 9.2.1).
func isUnsafeMethod(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
}

// changesState reports whether a request may do more than read: that is what no
// page of another site may send with somebody's session.
func changesState(r *http.Request) bool {
	// OPTIONS too: a browser's preflight carries no cookie, so this is none.
	return isUnsafeMethod(r.Method) || r.Method == http.MethodOptions || isWebSocket(r) || overridesMethod(r)
}

// overridesMethod: an app may take a safe request with such a header for an
// unsafe one.
func overridesMethod(r *http.Request) bool {
	for name := range r.Header {
		for _, override := range []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"} {
			if isEquivalentHeader(name, override) {
				return true
			}
		}
	}
	return false
}

// isForeign reports whether an unsafe request or a WebSocket was sent by a page
// of another site. The session's cookie would go along with it, from sibling
// subdomains whatever its SameSite attribute. Clients that send neither
// header are no browsers, and nobody can make them send somebody's cookie.
func (h *Handler) isCrossOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) > 1 {
		return true
	}
	if len(origins) == 1 && slices.Contains(h.TrustedOrigins, origins[0]) {
		return false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" && site != "none" {
		return true
	}
	// A page with Referrer-Policy: no-referrer sends "null" to its own site too
	// (Fetch, "append a request Origin header"); then the browser's own word,
	// which no page can forge, has to do.
	if len(origins) == 0 || origins[0] == "null" && site == "same-origin" {
		return false
	}
	own, err := h.Origin(r)
	return err != nil || origins[0] != own
}

// isPreflight reports whether a browser asks on behalf of a trusted page of
// another site what that may send (Fetch, CORS-preflight request). It carries no
// cookie by definition, and the app has to answer it. It is passed on for
// nobody, so it is nothing more: pages of this site send none, and none has a
// body, asks for another protocol or means another method.
func (h *Handler) isTrustedPreflight(r *http.Request) bool {
	origins := r.Header["Origin"]
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" &&
		len(origins) == 1 && slices.Contains(h.TrustedOrigins, origins[0]) &&
		r.ContentLength == 0 && r.Header["Upgrade"] == nil && !overridesMethod(r)
}
