package handler

import (
	"fmt"
	"net/http"
	"strings"
)

// framePolicy decides which sites may show the Handler's own answers in a frame. No
// site may, since it could trick the user into clicking on a button (clickjacking).
// With partitioned cookies, the pages of TrustedOrigins may: they can send requests
// with the user's session anyway, so a frame gives them nothing in addition.
type framePolicy struct {
	contentSecurityPolicy string
	// options is the value of X-Frame-Options for browsers that do not know
	// frame-ancestors. It cannot name origins, so it is empty if some are allowed.
	options string
}

// newFramePolicy returns the policy of a valid Config.
func newFramePolicy(c Config) framePolicy {
	ancestors := []string{"'self'"}
	for _, origin := range c.TrustedOrigins {
		// The text becomes a part of a header. Content Security Policy knows no IPv6
		// addresses, so no origin that it can express is left out.
		if c.Cookie.Partitioned && isCanonicalOrigin(origin) {
			ancestors = append(ancestors, origin)
		}
	}
	if len(ancestors) == 1 {
		return framePolicy{contentSecurityPolicy("'none'"), "DENY"}
	}
	return framePolicy{contentSecurityPolicy(strings.Join(ancestors, " ")), ""}
}

func (p framePolicy) set(header http.Header) {
	header.Set("Content-Security-Policy", p.contentSecurityPolicy)
	if p.options != "" {
		header.Set("X-Frame-Options", p.options)
	}
}

// contentSecurityPolicy allows the style of pages, and forms that are sent to this
// site. The answer to the logout form redirects to the authorization server, and
// some browsers apply form-action to redirects. It therefore allows https: and
// loopback hosts, too.
func contentSecurityPolicy(ancestors string) string {
	return fmt.Sprintf("default-src 'none'; style-src '%s'; form-action 'self' https: http://localhost:* http://127.0.0.1:*; frame-ancestors %s; base-uri 'none'",
		sourceHash(pageStyle), ancestors)
}
