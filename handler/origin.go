package handler

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// CheckOrigin refuses any text that is not exactly the scheme and host of a site,
// and any site whose browsers would not keep the session cookie. The case of letters
// and a default port do not matter (see CanonicalOrigin).
func CheckOrigin(origin string) error {
	canonical, ok := CanonicalOrigin(origin)
	if !ok {
		return notOriginError(origin)
	}
	u, err := url.Parse(canonical)
	if err != nil {
		return notOriginError(origin)
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

// insecureOriginError reports a site on plain http. Browsers send Secure cookies
// over https and to loopback hosts only, so every login would be lost at once.
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

// origin returns the public origin of the site. It fails if a login could not be
// kept there.
func (h *Handler) origin(r *http.Request) (string, *Error) {
	origin, err := h.publicOrigin(r)
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

// isUnsafeMethod reports whether a method may change state. A method that is not
// known to be safe, in exactly this spelling, is unsafe (RFC 9110, section 9.2.1).
func isUnsafeMethod(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
}

// changesState reports whether a request may do more than read. A page of another
// site must not send such a request with the user's session.
func changesState(r *http.Request) bool {
	// OPTIONS is included: a browser's preflight carries no cookie, so an OPTIONS
	// request with a session is not a preflight.
	return isUnsafeMethod(r.Method) || r.Method == http.MethodOptions || isWebSocket(r) || overridesMethod(r)
}

// overridesMethod reports whether an app may treat a safe request as an unsafe one,
// because of a header that names another method.
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

// isCrossOrigin reports whether a page of another site sent the request. The
// browser may add the session cookie to such a request: SameSite does not stop
// requests from sibling subdomains, which are the same site.
//
// A client that sends neither Origin nor Sec-Fetch-Site is not a browser. No page
// can make it send another user's cookie, so its requests are accepted.
func (h *Handler) isCrossOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) > 1 {
		return true
	}
	if len(origins) == 1 && h.isTrustedOrigin(origins[0]) {
		return false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" && site != "none" {
		return true
	}
	// A page with Referrer-Policy: no-referrer sends "null" to its own site, too
	// (Fetch, "append a request Origin header"). Sec-Fetch-Site then decides: the
	// browser sets it, and no page can forge it.
	if len(origins) == 0 || origins[0] == "null" && site == "same-origin" {
		return false
	}
	own, err := h.publicOrigin(r)
	sender, ok := CanonicalOrigin(origins[0])
	return err != nil || !ok || sender != own
}

// isTrustedPreflight reports whether a browser asks if a page of a trusted origin
// may send a request (Fetch, CORS-preflight request). A preflight never carries a
// cookie, and the app has to answer it, so it is relayed without a session.
//
// The conditions keep other requests from passing as one: a preflight has no body,
// asks for no other protocol and means no other method. Pages of this site send
// none.
func (h *Handler) isTrustedPreflight(r *http.Request) bool {
	origins := r.Header["Origin"]
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" &&
		len(origins) == 1 && h.isTrustedOrigin(origins[0]) &&
		r.ContentLength == 0 && r.Header["Upgrade"] == nil && !overridesMethod(r)
}
