package handler

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// CanonicalOrigin returns an origin in the form that browsers send (URL Standard,
// "host serializing" and "port state"): scheme and host in lower case and ASCII,
// and no port if it is the default one of the scheme. It reports false for any text
// that is not exactly a scheme and a host, such as "null".
//
// All origins of this package pass it before they are compared, stored or sent.
func CanonicalOrigin(origin string) (string, bool) {
	if isCanonicalOrigin(origin) {
		return origin, true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return "", false
	}
	scheme, host, _ := strings.Cut(origin, "://")
	if !strings.EqualFold(scheme, u.Scheme) || host != u.Host {
		return "", false // it has a user, a path, a query or a fragment
	}
	name, ok := canonicalHost(u)
	if !ok {
		return "", false
	}
	if u.Port() == "" {
		return u.Scheme + "://" + name, true
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case err != nil:
		return "", false
	case u.Scheme == "https" && port == 443, u.Scheme == "http" && port == 80:
		return u.Scheme + "://" + name, true
	}
	return fmt.Sprintf("%s://%s:%d", u.Scheme, name, port), true
}

// isCanonicalOrigin recognises common canonical origins without an allocation. It
// may report false for others.
func isCanonicalOrigin(origin string) bool {
	defaultPort := "443"
	host, ok := strings.CutPrefix(origin, "https://")
	if !ok {
		defaultPort = "80"
		host, ok = strings.CutPrefix(origin, "http://")
	}
	if !ok || host == "" || host[0] == ':' {
		return false
	}
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		case c == ':':
			port := host[i+1:]
			n, err := strconv.ParseUint(port, 10, 16)
			return err == nil && n > 0 && port[0] != '0' && port != defaultPort
		default:
			return false
		}
	}
	return true
}

// canonicalHost returns the host of a URL without its port.
func canonicalHost(u *url.URL) (string, bool) {
	name := u.Hostname()
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(name)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", false
		}
		if addr.Is4In6() {
			// Browsers write all parts of an IPv6 address in hexadecimal.
			b := addr.As16()
			return fmt.Sprintf("[::ffff:%x:%x]", int(b[12])<<8|int(b[13]), int(b[14])<<8|int(b[15])), true
		}
		return "[" + addr.String() + "]", true
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(name)
			return ascii, err == nil && ascii != "" && utf8.ValidString(name)
		}
	}
	return strings.ToLower(name), name != "" && !strings.Contains(name, ":")
}

// publicOrigin returns the canonical origin of the site.
func (h *Handler) publicOrigin(r *http.Request) (string, error) {
	origin, err := h.Origin(r)
	if err != nil {
		return "", err
	}
	canonical, ok := CanonicalOrigin(origin)
	if !ok {
		return "", notOriginError(origin)
	}
	return canonical, nil
}

// isTrustedOrigin reports whether TrustedOrigins has the value of an Origin header.
func (h *Handler) isTrustedOrigin(value string) bool {
	if len(h.TrustedOrigins) == 0 {
		return false
	}
	origin, ok := CanonicalOrigin(value)
	return ok && slices.Contains(h.TrustedOrigins, origin)
}

func notOriginError(origin string) error {
	return fmt.Errorf("%q is not an origin: give scheme and host alone, such as https://app.example.com", origin)
}
