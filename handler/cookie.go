package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Cookie has the attributes of the session cookie. It is always Secure and
// HttpOnly.
type Cookie struct {
	// Name must begin with "__Host-", so that no other host can set the cookie, or
	// with "__Secure-" if there is a Domain. Default: __Host-oauth_session, or
	// __Secure-oauth_session.
	Name string
	// Domain makes browsers send the cookie to the subdomains of that host, too.
	// Default: they send it to this host only.
	Domain string
	// SameSite is "lax" (default), "strict" or "none".
	SameSite string
	// Partitioned makes browsers keep a separate cookie for each site that embeds
	// this one (CHIPS). It requires SameSite "none". A frame may then begin a login,
	// which ends in that frame only if the authorization server allows to be framed or
	// answers without a page. Pages of Config.TrustedOrigins may frame the Handler's
	// own pages.
	Partitioned bool

	sameSite http.SameSite
}

const (
	defaultCookieName = "oauth_session"
	hostPrefix        = "__Host-"
	securePrefix      = "__Secure-"
	// How many cookies of each kind are parsed. A browser has at most five login
	// cookies and one session cookie of the module. The bounds leave room for
	// cookies of other domains and paths, and limit the work that a forged header
	// can cause.
	maxLoginCookies   = 20
	maxSessionCookies = 4
)

// DefaultName returns the cookie's name if Name is empty.
func (c *Cookie) DefaultName() string { return c.prefix() + defaultCookieName }

// prefix returns the prefix that the name must have.
func (c *Cookie) prefix() string {
	if c.Domain != "" {
		return securePrefix
	}
	return hostPrefix
}

// validate sets the defaults, and refuses a cookie that browsers would ignore.
func (c *Cookie) validate() error {
	prefix := c.prefix()
	if c.Name == "" {
		c.Name = c.DefaultName()
	}
	if !strings.HasPrefix(c.Name, prefix) || !isToken(c.Name) {
		return fmt.Errorf("cookie name %q: it must begin with %s and be made of letters, digits, - and _", c.Name, prefix)
	}
	if strings.HasPrefix(c.Name, loginCookiePrefix) {
		return fmt.Errorf("cookie name %q: names that begin with %s are those of the login cookies", c.Name, loginCookiePrefix)
	}
	if strings.Trim(c.Domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") != "" {
		return fmt.Errorf("cookie domain %q: give a host name such as example.com", c.Domain)
	}
	switch c.SameSite {
	case "", "lax":
		c.sameSite = http.SameSiteLaxMode
	case "strict":
		c.sameSite = http.SameSiteStrictMode
	case "none":
		c.sameSite = http.SameSiteNoneMode
	default:
		return fmt.Errorf("cookie same_site %q: give lax, strict or none", c.SameSite)
	}
	if c.Partitioned && c.sameSite != http.SameSiteNoneMode {
		return errors.New("cookie partitioned needs same_site none: browsers send no other cookie in a frame of another site")
	}
	return nil
}

// isToken accepts fewer characters than RFC 9110: the name has to pass through
// every server behind this one.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// setSession sets the session cookie. It has no Max-Age, so it ends with the
// browser; the server keeps the lifetime of the session.
func (h *Handler) setSession(w http.ResponseWriter, secret seal.Secret) {
	http.SetCookie(w, h.sessionCookie(secret.Cookie(), 0))
}

// clearSession deletes the session cookie. A browser ignores the deletion unless it
// has the attributes with which the cookie was set.
func (h *Handler) clearSession(w http.ResponseWriter) {
	http.SetCookie(w, h.sessionCookie("", -1))
}

func (h *Handler) sessionCookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: h.Cookie.Name, Value: value, MaxAge: maxAge,
		Path: "/", Domain: h.Cookie.Domain, Secure: true, HttpOnly: true,
		SameSite: h.Cookie.sameSite, Partitioned: h.Cookie.Partitioned,
	}
}

// cookies has the module's cookies of one request.
type cookies struct {
	// secret is the session's. It is set if valid is true.
	secret seal.Secret
	valid  bool
	// err is the error of a store that failed to find the cookie with a session
	// among several. The request must then not be treated as anonymous.
	err error
	// candidates has the parsed session cookies, without repetition.
	candidates [maxSessionCookies]seal.Secret
	count      int
	// present reports that the header has a session cookie, well-formed or not, or
	// a session cookie of another Handler.
	present bool
	// ended reports that the session has just been found to be at its end.
	ended bool
	// passive reports that the request does not count as use of the session.
	passive bool
	// logins has the login cookies, in the order of the header.
	logins []*http.Cookie
	// others has the lines of the header without the module's cookies.
	others []string
}

// readCookies parses the Cookie header of a request, and selects the session
// cookie. The app's cookies keep their bytes and their order.
func (h *Handler) readCookies(r *http.Request) cookies {
	c := h.parseCookies(r)
	switch c.count {
	case 0:
	case 1:
		c.secret, c.valid = c.candidates[0], true
	default:
		c.secret, c.valid, c.err = h.selectSession(r.Context(), c.candidates[:c.count])
	}
	return c
}

// parseCookies parses the Cookie header. It does not select the session cookie, so
// it needs no store.
func (h *Handler) parseCookies(r *http.Request) (c cookies) {
	for _, line := range r.Header["Cookie"] {
		if rest := h.parseCookieLine(r, line, &c); rest != "" {
			c.others = append(c.others, rest)
		}
	}
	return c
}

// addCandidate adds the secret of a session cookie, once, up to the bound.
func (c *cookies) addCandidate(secret seal.Secret) {
	if c.count < maxSessionCookies && !slices.Contains(c.candidates[:c.count], secret) {
		c.candidates[c.count] = secret
		c.count++
	}
}

// selectSession returns the only one of several session cookies that has a session.
// The others were set with other attributes, or by another site on a shared domain.
// If two cookies have a session, an attacker may have planted one, so neither is
// used. The error is the store's.
func (h *Handler) selectSession(ctx context.Context, secrets []seal.Secret) (picked seal.Secret, ok bool, err error) {
	for _, s := range secrets {
		_, err := h.Keeper.Peek(ctx, s)
		switch {
		case errors.Is(err, keeper.ErrNoSession):
			continue
		case err != nil:
			return seal.Secret{}, false, err
		case ok:
			return seal.Secret{}, false, nil
		}
		picked, ok = s, true
	}
	return picked, ok, nil
}

// parseCookieLine parses one line of the Cookie header, and returns the line
// without the module's cookies. A line without any of their names is returned as it
// is: that is the common case, and needs no allocation.
func (h *Handler) parseCookieLine(r *http.Request, line string, c *cookies) string {
	var neighbours []string
	if h.OtherCookies != nil {
		neighbours = h.OtherCookies(r, "")
	}
	inLine := func(name string) bool { return strings.Contains(line, name) }
	if !inLine(h.Cookie.Name) && !inLine(loginCookiePrefix) && !slices.ContainsFunc(neighbours, inLine) {
		return line
	}
	var kept strings.Builder
	for len(line) > 0 {
		pair, rest, _ := strings.Cut(line, ";")
		name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		switch {
		case name == h.Cookie.Name:
			c.present = true
			if secret, ok := seal.ParseSecret(value); ok {
				c.addCandidate(secret)
			}
		case strings.HasPrefix(name, loginCookiePrefix):
			if len(c.logins) < maxLoginCookies {
				c.logins = append(c.logins, &http.Cookie{Name: name, Value: value})
			}
		case slices.Contains(neighbours, name):
			c.present = true
		case kept.Len() == 0:
			kept.Grow(len(pair) + len(rest) + 1)
			kept.WriteString(strings.TrimLeft(pair, " \t"))
		default:
			kept.WriteByte(';')
			kept.WriteString(pair)
		}
		line = rest
	}
	return kept.String()
}
